"""What an installation is refused for."""

import os
import sys
from pathlib import Path

import pytest
from sojourn.errors.oauth import CannotInstall
from sojourn.installing.layout import Layout
from sojourn.installing.programs import run
from sojourn.installing.refusals import check_code, check_machine, systemd_version

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of other users")


class TestCode:
    @as_root
    def test_roots_alone(self) -> None:
        """Code below folders that are root's alone is taken."""
        check_code([Path("/usr/bin/env")])

    @as_root
    def test_below_a_sticky_folder(self, tmp_path: Path) -> None:
        """A folder in which everybody may make files of their own, and touch nobody else's, does no harm above."""
        shared = tmp_path / "shared"
        (shared / "ours").mkdir(parents=True)
        shared.chmod(0o1777)
        check_code([shared / "ours"])

    @as_root
    @pytest.mark.parametrize("where", ["file", "folder"])
    @pytest.mark.parametrize(("owner", "group", "mode", "why"), [
        (1000, 0, 0o755, "belongs to user 1000"),
        (0, 0, 0o757, "can be written by everybody"),
        (0, 1000, 0o775, "can be written by group 1000"),
    ])  # fmt: skip
    def test_somebody_elses(self, tmp_path: Path, where: str, owner: int, group: int, mode: int, why: str) -> None:
        """Code is refused that another user owns or may write to, or whose folder they may."""
        file = tmp_path / "code" / "module.py"
        file.parent.mkdir()
        file.touch()
        changed = file if where == "file" else file.parent
        os.chown(changed, owner, group)
        changed.chmod(mode)
        with pytest.raises(CannotInstall, match=why):
            check_code([file])

    @as_root
    def test_through_a_link(self, tmp_path: Path) -> None:
        """What a link of root's points to is what counts."""
        file = tmp_path / "theirs"
        file.touch()
        os.chown(file, 1000, 1000)
        (tmp_path / "link").symlink_to(file)
        with pytest.raises(CannotInstall, match="belongs to user 1000"):
            check_code([tmp_path / "link"])

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        """What cannot be looked at is refused."""
        with pytest.raises(CannotInstall, match="cannot be looked at"):
            check_code([tmp_path / "nothing"])


class TestMachine:
    def test_another_user(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """An ordinary user is told to come back as root."""
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(CannotInstall, match="only root"):
            check_machine(Layout(tmp_path))

    def test_an_older_python(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Python 3.10 is refused by its number."""
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(sys, "version_info", (3, 10, 12))
        with pytest.raises(CannotInstall, match=r"Python 3\.11 or newer"):
            check_machine(Layout(tmp_path))

    def test_without_systemd(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A machine that systemd does not run is told what else there is."""
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        with pytest.raises(CannotInstall, match="systemd does not run this machine"):
            check_machine(Layout(tmp_path))

    @pytest.mark.parametrize(("said", "version"), [
        ("systemd 252 (252.39-1~deb12u1)\n+PAM", 252),
        ("systemd 249.11\n", 249),
        ("systemd 258~rc1 (x)\n", 258),
    ])  # fmt: skip
    def test_systemds_version(self, said: str, version: int) -> None:
        """The number of systemd is read from its first line, whatever a distribution adds."""
        assert version == systemd_version(said)

    def test_no_version(self) -> None:
        """What says no number is refused."""
        with pytest.raises(CannotInstall, match="does not say"):
            systemd_version("upstart 1.0")

    @pytest.mark.parametrize(("version", "packaged", "why"), [
        ("248", False, "systemd 248 is too old: 249"),
        ("252", True, "a package of Sojourn is installed"),
    ])  # fmt: skip
    def test_an_old_systemd_and_a_package(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, packaged: bool, why: str
    ) -> None:
        """An older systemd, and a machine that has the package, are refused."""
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr("sojourn.installing.refusals.run", lambda *_: f"systemd {version} (x)\n")
        (tmp_path / "run/systemd/system").mkdir(parents=True)
        layout = Layout(tmp_path)
        if packaged:
            layout.packaged.parent.mkdir(parents=True)
            layout.packaged.touch()
        with pytest.raises(CannotInstall, match=why):
            check_machine(layout)


class TestPrograms:
    def test_nothing_of_the_callers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program gets how the index is reached, and nothing by which other code would be run."""
        monkeypatch.setenv("PIP_INDEX_URL", "https://index.example")
        pip = (
            "PIP_CONFIG_FILE",
            "PIP_TARGET",
            "PIP_PREFIX",
            "PIP_PYTHON",
            "PIP_FIND_LINKS",
            "PIP_CONSTRAINT",
            "PIP_NO_DEPS",
        )
        for name in ("LD_PRELOAD", "PYTHONPATH", "PATH", "ANYTHING", "HTTPS_PROXY_TOO", *pip):
            monkeypatch.setenv(name, "/evil")
        said = run("env")
        assert "PIP_INDEX_URL=https://index.example" in said
        assert "/evil" not in said

    def test_failures(self) -> None:
        """A program that fails or is not there is told with what it said."""
        with pytest.raises(CannotInstall, match=r"failed with status 3: no room"):
            run("sh", "-c", "echo no room >&2; exit 3")
        with pytest.raises(CannotInstall, match="cannot be run"):
            run("/nowhere/program")
