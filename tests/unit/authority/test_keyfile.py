"""keyfile.py: private keys on disk, ours alone, whole or not at all."""

import os
import stat

import pytest
from harness.looking import descriptors
from sojourn.authority import keyfile
from sojourn.errors import CannotStart


@pytest.fixture
def path(tmp_path):
    return tmp_path / "key.pem"


def test_round_trip(path):
    """What was written is read."""
    keyfile.write_new(path, b"secret")
    assert b"secret" == keyfile.read(path)


def test_nothing_there(path):
    """A file that is not there is None, not an error."""
    assert keyfile.read(path) is None


@pytest.mark.parametrize("umask", [0o000, 0o777, 0o022])
def test_mode_whatever_the_umask(path, umask):
    """The file can be read by us alone, whatever the umask is."""
    before = os.umask(umask)
    try:
        keyfile.write_new(path, b"secret")
    finally:
        os.umask(before)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_replaces_whole(path):
    """A file is replaced by another one, so that a reader has the old or the new content."""
    keyfile.write_new(path, b"old")
    with path.open("rb") as reader:
        keyfile.write_new(path, b"new")
        assert b"old" == reader.read()
    assert b"new" == keyfile.read(path)


def test_left_overs_do_no_harm(path):
    """A scratch file that a crash left behind is replaced, and none is left."""
    path.with_name("key.pem.new").write_bytes(b"half")
    keyfile.write_new(path, b"secret")
    assert ["key.pem"] == os.listdir(path.parent)


def test_a_link_at_the_scratch_name_is_not_followed(path, tmp_path):
    """A link in the place of the scratch file is removed, and its end is left alone."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    path.with_name("key.pem.new").symlink_to(victim)
    keyfile.write_new(path, b"secret")
    assert (b"mine", b"secret") == (victim.read_bytes(), keyfile.read(path))


def test_failure_leaves_the_old_one(path, monkeypatch):
    """If writing fails, the old file stays, nothing else is left, and no descriptor."""
    keyfile.write_new(path, b"old")
    before = descriptors()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyfile.os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        keyfile.write_new(path, b"new")
    assert (["key.pem"], before) == (os.listdir(path.parent), descriptors())
    assert b"old" == keyfile.read(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777, 0o610])
def test_open_to_others(path, mode):
    """A key that others could read, write or run is refused, with what to do."""
    keyfile.write_new(path, b"secret")
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
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_another_user_s(path):
    """A key of another user's is refused, by root too."""
    keyfile.write_new(path, b"secret")
    os.chown(path, 12345, 12345)
    with pytest.raises(CannotStart, match="belongs to user 12345"):
        keyfile.read(path)
