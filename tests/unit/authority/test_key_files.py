"""key_files.py: private keys on disk, ours alone."""

import os

import pytest
from harness.looking import OpenFiles
from sojourn.authority import key_files
from sojourn.errors import CannotStart
from sojourn.files import atomic


@pytest.fixture
def path(tmp_path):
    return tmp_path / "key.pem"


def test_round_trip(path):
    """What was written is read."""
    atomic.write(path, b"secret")
    assert b"secret" == key_files.read(path)


def test_nothing_there(path):
    """A file that is not there is None, not an error."""
    assert key_files.read(path) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777, 0o610])
def test_open_to_others(path, mode):
    """A key that others could read, write or run is refused, with what to do."""
    atomic.write(path, b"secret")
    path.chmod(mode)
    with pytest.raises(CannotStart, match="chmod 600"):
        key_files.read(path)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(os.mkdir, id="folder"),
        pytest.param(os.mkfifo, id="FIFO"),
        pytest.param(lambda path: os.symlink("/etc/hostname", path), id="link"),
    ],
)
def test_not_a_regular_file(path, make):
    """A folder, a FIFO or a link in the place of a key is refused at once."""
    make(path)
    before = OpenFiles()
    with pytest.raises(CannotStart):
        key_files.read(path)
    assert [] == before.opened_since()


@pytest.mark.root
@pytest.mark.root
def test_another_user_s(path):
    """A key of another user's is refused, by root too."""
    atomic.write(path, b"secret")
    os.chown(path, 12345, 12345)
    with pytest.raises(CannotStart, match="belongs to user 12345"):
        key_files.read(path)
