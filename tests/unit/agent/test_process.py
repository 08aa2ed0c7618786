"""process.py: what the agent asks of the kernel for itself."""

import gc
import os
import stat
import subprocess
import sys

import pytest
from harness.looking import OpenFiles
from sojourn.agent import process
from sojourn.agent.process import limitations
from sojourn.errors import CannotStart
from sojourn.files import data_folder
from sojourn.limits import THREAD_TURN_SECONDS


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def lock(folder):
    with data_folder.claim(folder):
        yield


def claim(folder):
    """Claim a data folder and give it up."""
    with data_folder.claim(folder):
        pass


class TestHarden:
    CODE = """
import os, resource
from sojourn.agent.process import harden
limit = harden()
print(resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE)[0] == limit)
print(oct(os.umask(0)))
import ctypes
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""

    def test_no_core_files_and_no_debuggers(self):
        """A hardened process dumps no core, cannot be traced, makes private files, and may open many."""
        done = subprocess.run([sys.executable, "-c", self.CODE], capture_output=True, text=True, check=True, timeout=60)
        assert ["(0, 0) True", "0o77", "0"] == done.stdout.splitlines()


class TestClaim:
    def test_makes_it_ours_alone(self, folder, lock):
        """The data folder is made for us alone, with a lock that names us."""
        assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
        assert f"{os.getpid()}\n" == (folder / "lock").read_text()
        assert 0o600 == stat.S_IMODE((folder / "lock").stat().st_mode)

    def test_once(self, folder, lock):
        """A data folder that is in use is refused, with the process that uses it."""
        with pytest.raises(CannotStart, match=f"process {os.getpid()}"):
            claim(folder)

    def test_once_whatever_becomes_of_the_file(self, folder, lock):
        """A lock file that somebody removes lets no second agent in."""
        (folder / "lock").unlink()
        with pytest.raises(CannotStart, match="another agent"):
            claim(folder)

    def test_again_after_it_was_given_up(self, folder):
        """A lock ends with its claim: a lock file that was left behind locks nobody out."""
        for _ in range(2):
            claim(folder)

    def test_a_longer_pid_leaves_nothing(self, folder):
        """The lock names its holder and nothing of an earlier one."""
        claim(folder)
        (folder / "lock").write_text("123456789012345\n")
        claim(folder)
        assert f"{os.getpid()}\n" == (folder / "lock").read_text()

    @pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
    def test_writable_by_others(self, folder, mode):
        """A data folder that others can write is refused."""
        folder.mkdir()
        folder.chmod(mode)
        with pytest.raises(CannotStart, match="chmod"):
            claim(folder)

    def test_a_file_in_its_place(self, folder):
        """A file in the place of the data folder is refused."""
        folder.touch()
        with pytest.raises(CannotStart):
            claim(folder)

    def test_a_link_in_the_place_of_the_lock(self, folder, tmp_path):
        """A link in the place of the lock is not followed."""
        folder.mkdir(mode=0o700)
        (folder / "lock").symlink_to(tmp_path / "victim")
        with pytest.raises(CannotStart):
            claim(folder)
        assert not (tmp_path / "victim").exists()

    @pytest.mark.root
    @pytest.mark.root
    def test_another_user_s(self, folder):
        """A data folder of another user's is refused, by root too."""
        folder.mkdir()
        os.chown(folder, 12345, 12345)
        with pytest.raises(CannotStart):
            claim(folder)

    def test_descriptors_are_closed_on_refusal(self, folder, lock):
        """A refused claim leaves no descriptor behind."""
        before = OpenFiles()
        with pytest.raises(CannotStart):
            claim(folder)
        assert [] == before.opened_since()


class TestLimitations:
    @pytest.mark.parametrize(
        ("uid", "capabilities", "limited"),
        [
            (0, 0, True),
            (1000, 0, True),
            (1000, 1 << 19 | 1 << 2, False),
            (0, 1 << 19 | 1 << 1, False),
            (1000, (1 << 19) - 1, True),
        ],
    )
    def test_by_privilege(self, monkeypatch, uid, capabilities, limited):
        """An agent that may not look into other users' processes says so, and what to do."""
        monkeypatch.setattr(process.os, "geteuid", lambda: uid)
        monkeypatch.setattr(process, "_capabilities", lambda: capabilities)
        found = limitations()
        assert limited is bool(found)
        assert all("CAP_SYS_PTRACE" in reason for reason in found.values())

    def test_of_programs_that_it_may_not_read(self, monkeypatch):
        """An agent that may look into processes, and not read their programs, says what it takes."""
        monkeypatch.setattr(process, "_capabilities", lambda: 1 << 19)
        assert ["CAP_DAC_READ_SEARCH"] == [
            word.strip(";") for reason in limitations().values() for word in reason.split() if "CAP_" in word
        ]

    def test_reads_the_kernel(self):
        """Capabilities are read from the kernel."""
        assert process._capabilities() >= 0


def test_settle():
    """What was made by then is spared by the garbage collector, what is made later is not; threads take short turns."""
    settled, before = [object()], sys.getswitchinterval()
    process.settle()
    try:
        assert THREAD_TURN_SECONDS == pytest.approx(sys.getswitchinterval())
        later = [object()]
        tracked = {id(each) for each in gc.get_objects()}
        assert [False, True] == [id(settled) in tracked, id(later) in tracked]
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before)
