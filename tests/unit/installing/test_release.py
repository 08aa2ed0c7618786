"""The release that is installed: its lock, its own files, its wheel in a bundle, its units."""

import errno
import hashlib
import os
import re
import shutil
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from sojourn.errors.oauth import CannotInstall
from sojourn.installing import units
from sojourn.installing.layout import COMMAND, SERVICE
from sojourn.installing.release import Release, installed_files, requirements, this_release, unit_files

ROOT = Path(__file__).parents[3]
_BUILDS = {"editables", "hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers"}
_BLOCK = re.compile(r"^([\w.-]+)==(?:.*\\\n)+.*\n?", re.MULTILINE)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of other users")


def wheel_in(folder: Path) -> Path:
    """A wheel of ours, in a folder of its own."""
    folder.mkdir(parents=True)
    wheel = folder / f"sojourn-{distribution('sojourn').version}-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    return wheel


def blocks(text: str) -> dict[str, str]:
    """What a lock says of each library, hashes included."""
    return {found[1]: found[0].rstrip() for found in _BLOCK.finditer(text)}


class TestLock:
    def test_is_the_agents(self) -> None:
        """What is installed on machines are the libraries that are tested, by the same hashes, without what builds them."""
        tested = blocks((ROOT / ".ci/locks/agent.txt").read_text())
        shipped = blocks(requirements())
        assert len(shipped) > 30
        assert {name: said for name, said in tested.items() if name not in _BUILDS} == shipped

    def test_each_has_a_hash(self) -> None:
        """No line of the lock names a library without a hash."""
        assert all("--hash=sha256:" in said for said in blocks(requirements()).values())


class TestBundle:
    def test_one_wheel_of_ours(self, tmp_path: Path) -> None:
        """A folder of wheels must have one of this version, and is refused with none or two."""
        release = Release("1.0", tmp_path)
        with pytest.raises(CannotInstall, match="has 0"):
            _ = release.own_wheel
        (tmp_path / "sojourn-1.0-py3-none-any.whl").touch()
        assert tmp_path / "sojourn-1.0-py3-none-any.whl" == release.own_wheel
        (tmp_path / "sojourn-1.0-py3-none-linux.whl").touch()
        with pytest.raises(CannotInstall, match="has 2"):
            _ = release.own_wheel

    @as_root
    @pytest.mark.parametrize("where", [".", "wheels", "wheels/{}"])
    @pytest.mark.parametrize(("owner", "mode", "why"), [
        (0, 0o777, "can be written by everybody"),
        (1000, 0o755, "belongs to user 1000"),
    ])  # fmt: skip
    def test_others_could_write_there(self, tmp_path: Path, where: str, owner: int, mode: int, why: str) -> None:
        """A folder of wheels, what is above it, or a wheel in it that others than root could change is refused."""
        wheel = wheel_in(tmp_path / "wheels")
        changed = tmp_path / where.format(wheel.name)
        os.chown(changed, owner, 0)
        changed.chmod(mode)
        with pytest.raises(CannotInstall, match=why), this_release(wheel.parent):
            pass

    @as_root
    def test_a_shared_folder(self, tmp_path: Path) -> None:
        """A folder in which everybody may make files holds no wheels, as theirs would be among them."""
        wheel = wheel_in(tmp_path / "wheels")
        wheel.parent.chmod(0o1777)
        with pytest.raises(CannotInstall, match="can be written by everybody"), this_release(wheel.parent):
            pass

    @as_root
    def test_the_way_to_it(self, tmp_path: Path) -> None:
        """What a link on the way leads to is what is looked at."""
        wheel = wheel_in(tmp_path / "theirs" / "wheels")
        os.chown(tmp_path / "theirs", 1000, 1000)
        (tmp_path / "link").symlink_to(wheel.parent)
        with pytest.raises(CannotInstall, match="theirs belongs to user 1000"), this_release(tmp_path / "link"):
            pass

    @as_root
    def test_a_wheel_that_is_a_link(self, tmp_path: Path) -> None:
        """A wheel that is a link, or no regular file, is refused."""
        wheel = wheel_in(tmp_path / "wheels")
        (wheel.parent / "other.whl").symlink_to(wheel)
        with pytest.raises(CannotInstall, match=r"other\.whl cannot be installed from"), this_release(wheel.parent):
            pass
        (wheel.parent / "other.whl").unlink()
        os.mkfifo(wheel.parent / "other.whl")
        with pytest.raises(CannotInstall, match="not a regular file"), this_release(wheel.parent):
            pass

    @as_root
    def test_no_room_for_the_copy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the copy has no room, that is said with what to do."""
        wheel = wheel_in(tmp_path / "wheels")

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(CannotInstall, match="No space left on device; TMPDIR"), this_release(wheel.parent):
            pass

    @as_root
    def test_what_is_changed_later(self, tmp_path: Path) -> None:
        """What is installed is a copy of root's, with our own wheel by its hash; it is gone afterwards."""
        wheel = wheel_in(tmp_path / "wheels")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        with this_release(wheel.parent) as release:
            wheel.write_bytes(b"another")
            assert release.wheels is not None
            assert 0o700 == release.wheels.stat().st_mode & 0o777
            assert release.requirements().endswith(f"sojourn=={release.version} --hash=sha256:{digest}\n")
            assert release.requirements().startswith(requirements())
        assert not release.wheels.exists()

    def test_no_folder(self, tmp_path: Path) -> None:
        """A folder that is not there is said."""
        with pytest.raises(CannotInstall, match="cannot be installed from"), this_release(tmp_path / "nothing"):
            pass


class TestDigests:
    def test_of_a_wheel(self, tmp_path: Path) -> None:
        """What a wheel is made of are our own files by its record; libraries' and the record itself do not count."""
        with zipfile.ZipFile(tmp_path / "sojourn-1.0-py3-none-any.whl", "w") as wheel:
            record = (
                "sojourn/b.py,sha256=BB,2\nsojourn/a.py,sha256=AA,1\nsojourn-1.0.dist-info/RECORD,,\nx.py,sha256=X,1\n"
            )
            wheel.writestr("sojourn-1.0.dist-info/RECORD", record)
        assert [("sojourn/a.py", "AA"), ("sojourn/b.py", "BB")] == Release("1.0", tmp_path).own_digests()

    def test_a_checkout(self) -> None:
        """An editable installation has no files of its own to install, and says what to do instead."""
        if distribution("sojourn").read_text("direct_url.json") is None:
            pytest.skip("this is no editable installation")
        with pytest.raises(CannotInstall, match="this is a checkout"):
            installed_files()


class TestUnits:
    def test_the_command(self) -> None:
        """The units are those of the packages, with the command where this way of installing has it."""
        service = units.texts()[SERVICE]
        assert f"ExecStart={COMMAND} agent run" in service
        assert "/usr/lib/sojourn" not in service
        assert set(units.UNITS) < set(units.texts())
        assert not [name for name, text in units.texts().items() if "/usr/lib/sojourn" in text]
        assert units.BACKUP_TIMER in units.texts()

    def test_what_else_is_shipped(self) -> None:
        """The user, the folders and a configuration that changes nothing come with them."""
        shipped = unit_files()
        assert {"sojourn.sysusers", "sojourn.tmpfiles", "agent.toml"} <= set(shipped)
        assert all(line.startswith("#") or not line.strip() for line in shipped["agent.toml"].splitlines())
