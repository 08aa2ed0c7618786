"""keyfile.py: private keys on disk, ours alone."""

import os

import pytest
from harness.looking import descriptors
from sojourn import wholefile
from sojourn.authority import keyfile
from sojourn.errors import CannotStart


@pytest.fixture
def path(tmp_path):
    return tmp_path / "key.pem"


def test_round_trip(path):
    """What was written is read."""
    wholefile.write(path, b"secret")
    assert b"secret" == keyfile.read(path)


def test_nothing_there(path):
    """A file that is not there is None, not an error."""
    assert keyfile.read(path) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777, 0o610])
def test_open_to_others(path, mode):
    """A key that others could read, write or run is refused, with what to do."""
    wholefile.write(path, b"secret")
    path.chmod(mode)
    with pytest.raises(CannotStart, match="chmod 600"):
        keyfile.read(path)


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
    before = descriptors()
    with pytest.raises(CannotStart):
        keyfile.read(path)
    assert before == descriptors()


@pytest.mark.root
@pytest.mark.root
def test_another_user_s(path):
    """A key of another user's is refused, by root too."""
    wholefile.write(path, b"secret")
    os.chown(path, 12345, 12345)
    with pytest.raises(CannotStart, match="belongs to user 12345"):
        keyfile.read(path)
