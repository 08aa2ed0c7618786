"""The environment of a release: whose it is, and what is there while it is made."""

import os
import subprocess
from pathlib import Path

import pytest
from sojourn.errors.oauth import CannotInstall
from sojourn.installing import environment
from sojourn.installing.installation import _older
from sojourn.installing.layout import Layout
from sojourn.installing.release import Release

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of other users")


class TestMaking:
    @pytest.fixture
    def release(self, monkeypatch: pytest.MonkeyPatch) -> Release:
        """A release of one module, which needs no pip."""
        monkeypatch.setattr(environment, "_pip", lambda *_: None)
        monkeypatch.setattr(Release, "own_digests", lambda _: [("said.py", "AA")])
        monkeypatch.setattr(
            environment, "_copy_ourselves", lambda to: (to / "said.py").write_text("WHERE = lambda: 1\n")
        )
        return Release("1.0", None)

    @as_root
    def test_is_whole(self, tmp_path: Path, release: Release) -> None:
        """What is made beside it takes its place with nothing of the old one in it, and names the place where it is."""
        folder = tmp_path / "sojourn" / "1.0"
        for left in (folder, folder.with_name(".1.0.new"), folder.with_name(".1.0.old")):
            (left / "bin").mkdir(parents=True)
            (left / "bin" / "python3").touch()
        environment.make(folder, release)
        assert environment.is_made(folder, release)
        assert ["1.0"] == os.listdir(folder.parent)
        assert (folder / "bin" / "sojourn").read_text().startswith(f"#!{folder}/bin/python3 -IB\n")
        asked = "import said; print(said.__file__, said.WHERE.__code__.co_filename)"
        said = subprocess.run(
            [folder / "bin" / "python3", "-Ic", asked], capture_output=True, text=True, check=True
        ).stdout
        assert [str(environment._modules(folder) / "said.py")] * 2 == said.split()

    @as_root
    def test_a_failure_leaves_what_was_there(
        self, tmp_path: Path, release: Release, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where libraries cannot be had, the environment of before is there as it was, and nothing beside it."""
        folder = tmp_path / "1.0"
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "sojourn").write_text("of before")

        def fails(*_: object) -> None:
            raise CannotInstall("no index")

        monkeypatch.setattr(environment, "_pip", fails)
        with pytest.raises(CannotInstall, match="no index"):
            environment.make(folder, release)
        assert "of before" == (folder / "bin" / "sojourn").read_text()
        assert ["1.0"] == os.listdir(tmp_path)

    def test_what_was_cut_off_is_no_release(self, tmp_path: Path) -> None:
        """Half an environment that a crash has left is removed, and is not kept in the place of the release before."""
        layout = Layout(tmp_path)
        for name in ("1.0", "1.1", ".1.2.new"):
            layout.release(name).mkdir(parents=True)
            os.utime(layout.release(name), (len(name), len(name)))
        layout.current.symlink_to("1.1")
        assert [layout.release(".1.2.new")] == _older(layout, "1.1")


class TestPermissions:
    @as_root
    def test_everybody_reads(self, tmp_path: Path) -> None:
        """Everything in it can be read by everybody and written by root alone, whatever it was."""
        made = tmp_path / "1.0" / "bin" / "python3"
        made.parent.mkdir(parents=True, mode=0o700)
        made.touch(0o666)
        environment._permissions(tmp_path / "1.0")
        assert [0o755, 0o755, 0o755] == [path.stat().st_mode & 0o7777 for path in (made, *made.parents[:2])]

    @as_root
    @pytest.mark.parametrize("where", ["bin", "bin/python3"])
    def test_somebody_elses(self, tmp_path: Path, where: str) -> None:
        """An environment of which a file or a link is another user's is refused."""
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python3").symlink_to("/usr/bin/python3")
        os.chown(tmp_path / where, 1000, 1000, follow_symlinks=False)
        with pytest.raises(CannotInstall, match=f"{where} belongs to user 1000, and not to root"):
            environment._permissions(tmp_path)
