"""Files that decide who may do what are read only if nobody else could have written them."""

import os

import pytest
from sojourn.errors import InvalidInput
from sojourn.files import trusted
from sojourn.files.folder_watch import WatchedFolder


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


class TestVolumes:
    @pytest.fixture
    def volume(self, tmp_path):
        """A ConfigMap, as the kubelet mounts it: the files of the day in a folder of their own, and links to them."""
        made = tmp_path / "types"
        (made / "..2026_07_31").mkdir(parents=True)
        (made / "..2026_07_31").chmod(0o755)
        (made / "..2026_07_31" / "a.toml").write_text("x = 1")
        (made / "..data").symlink_to("..2026_07_31")
        (made / "a.toml").symlink_to("..data/a.toml")
        made.chmod(0o1777)
        return made

    def test_the_kubelets(self, volume):
        """A volume of the kubelet's, which no chmod changes for long, is refused with the folder in it that can be named."""
        with pytest.raises(InvalidInput, match=f"as the kubelet mounts it: name '{volume}/..data'"):
            trusted.check_folder(volume)
        trusted.check_folder(volume / "..data")
        assert "x = 1" == trusted.read(volume / "..data" / "a.toml", 100)

    def test_is_followed(self, volume):
        """When the kubelet has changed what is in it, the folder of the day is seen to be another."""
        watched = WatchedFolder(volume / "..data", lambda name: name.endswith(".toml"), 10)
        before = watched.sight()
        assert before == watched.sight()
        (volume / "..2026_08_01").mkdir()
        (volume / "..2026_08_01" / "a.toml").write_text("x = 2")
        (volume / "..data_tmp").symlink_to("..2026_08_01")
        (volume / "..data_tmp").rename(volume / "..data")
        assert before != watched.sight()

    def test_any_other(self, volume):
        """Without that folder in it, what to do is as for a file; one in good order is taken as it is."""
        (volume / "..data").unlink()
        with pytest.raises(InvalidInput, match="chmod go-w"):
            trusted.check_folder(volume)
        volume.chmod(0o755)
        trusted.check_folder(volume)

    @pytest.mark.root
    def test_of_another_user(self, volume):
        """That it is another user's is said first."""
        os.chown(volume, 4001, 4001)
        with pytest.raises(InvalidInput, match="belongs to user 4001"):
            trusted.check_folder(volume)
