"""digests.py and filestatus.py: digests of files, remembered only where the kernel vouches for it. Files are real."""

import dataclasses
import hashlib
import mmap
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sojourn_attestors.kernel.digests import Changed, Digests, GivenUp
from sojourn_attestors.kernel.filestatus import FileStatus

LATER = 10.0  # seconds after the last change


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    descriptor = os.open(path, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def digests():
    """Digests that see each file ten seconds after it was written."""
    return Digests(wall=lambda: time.time() + LATER)


def settled(descriptor):
    """What a file system that keeps all times says of it, whatever this test runs on."""
    return dataclasses.replace(FileStatus.of(descriptor), timed=True)


def digest_of(digests, descriptor, status=settled):
    """The digest, as an attestation gets it."""
    file = status(descriptor)
    known = digests.known(file)
    if known is not None:
        return known
    coming, ours = digests.begin(file)
    if ours:
        digests.compute(file, os.dup(descriptor), coming)
    return coming.result(20)


@pytest.fixture
def computed(monkeypatch):
    """How many bytes each computing was asked for."""
    sizes = []
    real = Digests._read

    def read(descriptor, size):
        sizes.append(size)
        return real(descriptor, size)

    monkeypatch.setattr(Digests, "_read", staticmethod(read))
    return sizes


class TestDigests:
    def test_of_a_file(self, digests, file):
        """The digest is of the whole file."""
        assert hashlib.sha256(b"x" * 3_000_000).hexdigest() == digest_of(digests, file)

    def test_once(self, digests, file, computed):
        """A file that did not change is read once."""
        assert digest_of(digests, file) == digest_of(digests, file)
        assert [3_000_000] == computed

    def test_again_when_it_changed(self, digests, file, computed):
        """A file that was written to in place is read again, though it has the size and mtime that it had."""
        before = os.fstat(file)
        first = digest_of(digests, file)
        os.pwrite(file, b"y", 0)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = os.fstat(file)
        assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        assert first != digest_of(digests, file)
        assert 2 == len(computed)

    def test_just_changed(self, file, computed):
        """A file that was changed within the kernel's tick is read anew each time: a next change might not show."""
        digests = Digests()
        digest_of(digests, file)
        os.pwrite(file, b"y", 0)
        assert hashlib.sha256(b"y" + b"x" * 2_999_999).hexdigest() == digest_of(digests, file)
        digest_of(digests, file)
        assert (3, 0) == (len(computed), len(digests._kept))

    def test_after_the_clock_was_set_back(self, file, computed):
        """What was remembered before the clock was set back is read anew: times of change come again then."""
        wall = [time.time() + LATER]
        digests = Digests(wall=lambda: wall[0])
        digest_of(digests, file)
        wall[0] -= 5
        digest_of(digests, file)
        digest_of(digests, file)
        assert 2 == len(computed)

    def test_where_times_prove_nothing(self, digests, file, computed):
        """On a file system whose times may stand still, each attestation reads the file."""
        for _ in range(3):
            digest_of(digests, file, status=lambda each: dataclasses.replace(settled(each), timed=False))
        assert (3, 0) == (len(computed), len(digests._kept))

    def test_written_to_meanwhile(self, digests, file, monkeypatch):
        """A file that is written to while it is read has no digest."""
        real = Digests._read

        def write(descriptor, size):
            os.ftruncate(descriptor, 10)
            return real(descriptor, size)

        monkeypatch.setattr(Digests, "_read", staticmethod(write))
        with pytest.raises(Changed):
            digest_of(digests, file)
        assert ([], {}) == (list(digests._kept), digests._computing)

    def test_that_cannot_be_read(self, digests, file, monkeypatch):
        """If reading fails, that is told, and the next one tries anew."""

        def fail(*_):
            raise OSError(5, "Input/output error")

        real = Digests._read
        monkeypatch.setattr(Digests, "_read", staticmethod(fail))
        with pytest.raises(OSError, match="Input/output"):
            digest_of(digests, file)
        monkeypatch.setattr(Digests, "_read", staticmethod(real))
        assert hashlib.sha256(b"x" * 3_000_000).hexdigest() == digest_of(digests, file)
        assert {} == digests._computing

    def test_given_up(self, digests, file):
        """Whoever waits for a digest that is given up hears that, and may compute it."""
        status = settled(file)
        coming, ours = digests.begin(status)
        waited, theirs = digests.begin(status)
        assert (True, False, True) == (ours, theirs, waited is coming)
        digests.give_up(status, coming)
        with pytest.raises(GivenUp):
            waited.result(20)
        assert digests.begin(status)[1]

    def test_a_bounded_number_is_kept(self, digests, tmp_path, monkeypatch):
        """Of all digests a bounded number is kept: those that were asked for last."""
        monkeypatch.setattr(digests._kept, "room", 2)
        keys = []
        for number in range(4):
            path = tmp_path / str(number)
            path.write_bytes(bytes([number]))
            with path.open("rb") as each:
                keys.append(settled(each.fileno()).key)
                digest_of(digests, each.fileno())
        assert keys[2:] == list(digests._kept)

    def test_side_by_side(self, digests, file, monkeypatch):
        """Of those who ask for a digest at once one computes it, and all others have it from there."""
        computed, go_on = [], threading.Event()

        def slow(*_):
            computed.append(1)
            go_on.wait(20)
            return "x"

        monkeypatch.setattr(Digests, "_read", staticmethod(slow))
        with ThreadPoolExecutor(8) as pool:
            found = [pool.submit(digest_of, digests, file) for _ in range(8)]
            go_on.set()
            assert ["x"] * 8 == [each.result(20) for each in found]
        assert [1] == computed


class TestFileSystems:
    """What the kernel vouches for, on file systems mounted for it. Needs root."""

    @pytest.fixture
    def tmpfs(self, tmp_path):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=True)
        yield tmp_path
        subprocess.run(["umount", str(tmp_path)], check=True)

    @pytest.fixture
    def ext4(self, tmp_path):
        image, folder = tmp_path / "image", tmp_path / "mounted"
        folder.mkdir()
        image.write_bytes(b"")
        os.truncate(image, 16 * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", "-I", "256", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    @staticmethod
    def mapped_write(path):
        """Write through a new mapping, to a page that was read through it before."""
        with path.open("r+b") as each, mmap.mmap(each.fileno(), 0) as mapping:
            assert b"good" == mapping[0:4]
            mapping[0:4] = b"evil"

    @pytest.mark.full
    @pytest.mark.root
    def test_memory(self, tmpfs):
        """A write through a mapping changes nothing that tmpfs tells of a file: so digests there are never kept.

        A digest that is kept would be that of the first content, and given to whoever runs the second.
        """
        path = tmpfs / "program"
        path.write_bytes(b"good" + bytes(4096))
        descriptor = os.open(path, os.O_RDONLY)
        before = FileStatus.of(descriptor)
        digests = Digests(wall=lambda: time.time() + LATER)
        first = digest_of(digests, descriptor, status=FileStatus.of)
        self.mapped_write(path)
        after = FileStatus.of(descriptor)
        second = digest_of(digests, descriptor, status=FileStatus.of)
        os.close(descriptor)
        assert (False, hashlib.sha256(b"evil" + bytes(4096)).hexdigest()) == (after.timed, second)
        assert first != second
        assert before.key == after.key  # if this fails, the kernel has learnt to tell, and the rule may go

    @pytest.mark.full
    @pytest.mark.root
    def test_a_disk(self, ext4):
        """On a disk's file system a write through a mapping shows in the times: digests there may be kept."""
        path = ext4 / "program"
        path.write_bytes(b"good" + bytes(4096))
        descriptor = os.open(path, os.O_RDONLY)
        before = FileStatus.of(descriptor)
        time.sleep(0.02)  # more than a tick of the kernel's clock for files
        self.mapped_write(path)
        after = FileStatus.of(descriptor)
        os.close(descriptor)
        assert (True, True) == (before.timed, before.key != after.key)

    @pytest.mark.full
    @pytest.mark.root
    def test_another_mount(self, tmp_path, ext4):
        """The same file through another mount is another key: numbers of devices and files come again with other disks."""
        path, other = ext4 / "program", tmp_path / "other"
        path.write_bytes(b"good")
        other.mkdir()
        subprocess.run(["mount", "--bind", str(ext4), str(other)], check=True)
        try:
            with path.open("rb") as one, (other / "program").open("rb") as two:
                first, second = FileStatus.of(one.fileno()), FileStatus.of(two.fileno())
        finally:
            subprocess.run(["umount", str(other)], check=True)
        assert first.key[:5] == second.key[:5]
        assert first.key != second.key

    @pytest.mark.root
    @pytest.mark.parametrize(("owner", "mode", "kept"), [(0, 0o755, True), (0, 0o775, False), (77, 0o755, False)])
    def test_layers(self, tmp_path, owner, mode, kept):
        """On an overlay, whose layers may lie anywhere, digests are kept only of what nobody but root may write."""
        for name in ("lower", "upper", "work", "merged"):
            (tmp_path / name).mkdir()
        program = tmp_path / "lower" / "program"
        program.write_bytes(b"good")
        os.chown(program, owner, owner)
        program.chmod(mode)
        options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        merged = tmp_path / "merged"
        done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=False)
        if done.returncode:
            pytest.skip("needs a file system that overlays can be mounted on")
        try:
            with (merged / "program").open("rb") as each:
                assert kept is FileStatus.of(each.fileno()).timed
        finally:
            subprocess.run(["umount", str(merged)], check=True)
