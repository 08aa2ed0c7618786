"""atomic.py: files that are there whole or not at all."""

import os
import stat
from pathlib import Path

import pytest
from harness.looking import OpenFiles
from sojourn.files import atomic


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "key.pem"


@pytest.mark.parametrize("umask", [0o000, 0o777, 0o022])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_mode_whatever_the_umask(path: Path, umask: int, mode: int) -> None:
    """A file has the mode that was asked for, whatever the umask is and whichever the file before it had."""
    path.touch(0o640)
    before = os.umask(umask)
    try:
        atomic.write(path, b"secret", mode)
    finally:
        os.umask(before)
    assert mode == stat.S_IMODE(path.stat().st_mode)


def test_replaces_whole(path: Path) -> None:
    """A file is replaced by another one, so that a reader has the old or the new content."""
    atomic.write(path, b"old")
    with path.open("rb") as reader:
        atomic.write(path, b"new")
        assert b"old" == reader.read()
    assert b"new" == path.read_bytes()


def test_within_a_folder(tmp_path: Path) -> None:
    """A folder that is open is written to, whatever its path leads to by now."""
    (tmp_path / "one").mkdir()
    folder = os.open(tmp_path / "one", os.O_RDONLY)
    (tmp_path / "one").rename(tmp_path / "two")
    (tmp_path / "one").mkdir()
    atomic.write(Path("key.pem"), b"new", within=folder)
    os.close(folder)
    assert ([], b"new") == (os.listdir(tmp_path / "one"), (tmp_path / "two" / "key.pem").read_bytes())


def test_left_overs_do_no_harm(path: Path) -> None:
    """A scratch file that a crash left behind is replaced, and none is left."""
    path.with_name(".key.pem.new").write_bytes(b"half")
    atomic.write(path, b"secret")
    assert ["key.pem"] == os.listdir(path.parent)


@pytest.mark.parametrize("name", ["key.pem", ".key.pem.new"])
def test_a_link_is_not_followed(path: Path, tmp_path: Path, name: str) -> None:
    """A link in the place of the file or of its scratch file is replaced, and what it leads to is left alone."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / name).symlink_to(victim)
    atomic.write(path, b"secret")
    assert (b"mine", b"secret", False) == (victim.read_bytes(), path.read_bytes(), path.is_symlink())


def test_a_folder_is_in_its_place(path: Path) -> None:
    """Where there is a folder of that name it stays, and nothing is left beside it."""
    path.mkdir()
    with pytest.raises(OSError):
        atomic.write(path, b"secret")
    assert ["key.pem"] == os.listdir(path.parent)


def test_failure_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If writing fails, the old file stays, nothing else is left, and no descriptor."""
    atomic.write(path, b"old")
    before = OpenFiles()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        atomic.write(path, b"new")
    assert (["key.pem"], [], b"old") == (os.listdir(path.parent), before.opened_since(), path.read_bytes())


def test_interrupted_at_the_last_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C just after the file has its name is Ctrl-C, and no error of a scratch file that is not there."""
    rename = os.rename

    def interrupted(*args: object, **options: object) -> None:
        rename(*args, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic.write(path, b"new")
    assert (["key.pem"], b"new") == (os.listdir(path.parent), path.read_bytes())
