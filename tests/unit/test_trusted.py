"""Files that decide who may do what are read only if nobody else could have written them."""

import os

import pytest
from sojourn import trusted
from sojourn.errors import InvalidInput


def test_ours(tmp_path):
    """A file of our own is read whole."""
    path = tmp_path / "a.toml"
    path.write_text("x = 'é'\n")
    assert "x = 'é'\n" == trusted.read(path, 100)


def test_with_a_mark(tmp_path):
    """The mark that some editors put before a text is no part of it."""
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfx = 1\n")
    assert "x = 1\n" == trusted.read(path, 100)


@pytest.mark.parametrize("mode", [0o666, 0o646, 0o602])
def test_writable_by_others(tmp_path, mode):
    """A file that others may write is refused, with what to do."""
    path = tmp_path / "a.toml"
    path.write_text("x")
    path.chmod(mode)
    with pytest.raises(InvalidInput, match="chmod go-w"):
        trusted.read(path, 100)


@pytest.mark.root
def test_of_another_user(tmp_path):
    """A file of another user is refused."""
    path = tmp_path / "a.toml"
    path.write_text("x")
    os.chown(path, 4001, 4001)
    with pytest.raises(InvalidInput, match="belongs to user 4001"):
        trusted.read(path, 100)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["FIFO", "folder"])
def test_not_a_file(tmp_path, make):
    """What is no file is refused at once, and not waited for."""
    make(tmp_path / "a.toml")
    with pytest.raises(InvalidInput, match="not a regular file"):
        trusted.read(tmp_path / "a.toml", 100)


@pytest.mark.parametrize(("content", "says"), [(b"x" * 101, "larger"), (b"\xff", "not UTF-8")])
def test_bad_content(tmp_path, content, says):
    """A file that is too large or not UTF-8 is refused."""
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(InvalidInput, match=says):
        trusted.read(tmp_path / "a.toml", 100)


def test_missing(tmp_path):
    """A file that is not there is said to be not there."""
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        trusted.read(tmp_path / "a.toml", 100)
