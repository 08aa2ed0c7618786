"""proc_reader.py: what another process reads of /proc, and how that is given up. All processes are real."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from fakes.children import child
from harness.looking import gone, until
from sojourn.attestation import proc_reader as module
from sojourn.attestation.proc_reader import HeldUp, ProcReader, TooManyGroups
from sojourn.errors import AttestationFailed
from sojourn.limits import CROWDED_SECONDS, GROUPS_PER_CALLER, PROC_HELD_UP_SECONDS

NOBODY = 2**22 + 1
COMPUTES = """
import os
from sojourn.attestation.proc_read import READY
os.write(int(sys.argv[2]), READY)
parent = os.getppid()
while os.getppid() == parent:
    pass
"""
IN_GROUPS = "import os, sys; os.setgroups(range(200_000, 200_000 + int(sys.argv[1]))); print(flush=True); os.read(0, 1)"


@pytest.fixture
def reader():
    made = ProcReader()
    yield made
    made.close()
    for _, held_up in made._until.values():
        if held_up is not None:
            held_up.kill()
            held_up.wait()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that are added to the clock's."""
    added = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + added[0])
    return added


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(module, "PROC_ANSWER_SECONDS", 0.1)


def held_up(reader, pid):
    """Have the process of the reader stand still, and ask it. Its pid."""
    reader.stat(os.getpid())
    stopped = reader._reading.process.pid
    os.kill(stopped, signal.SIGSTOP)
    with pytest.raises(HeldUp):
        reader.stat(pid)
    return stopped


class TestAnswers:
    def test_stat(self, reader):
        """What is told is what the kernel says of the whole process."""
        with child() as process:
            for pid in (process.pid, os.getpid(), 1):
                text = Path(f"/proc/{pid}/stat").read_text("ascii")
                fields = text[text.rfind(")") + 2 :].split()
                found = reader.stat(pid)
                assert [int(fields[number]) for number in (1, 19, 6)] == [found.parent, found.start_time, found.flags]

    @pytest.mark.parametrize("name", [") Z 1 1 1 1", "a b) S (", "x\ny", "((((", "é"])
    def test_a_name_that_lies(self, reader, tmp_path, name):
        """A program may be called anything: the fields after its name are read all the same."""
        shutil.copy(shutil.which("sleep"), tmp_path / name)
        with child(str(tmp_path / name), "60") as process:
            found = reader.stat(process.pid)
            assert (os.getpid(), True) == (found.parent, found.start_time > 1)

    def test_credentials(self, reader):
        """Effective ids and groups are told."""
        with child() as process:
            found = reader.credentials(process.pid)
        assert (os.geteuid(), os.getegid(), frozenset(os.getgroups())) == (found.uid, found.gid, found.groups)

    @pytest.mark.parametrize("name", ["Uid:\t7\t7\t7\t7", "a\nUid:\t7\t7"])
    def test_a_name_that_looks_like_ids(self, reader, tmp_path, name):
        """A program whose name looks like a line of ids has those of its user all the same."""
        shutil.copy(shutil.which("sleep"), tmp_path / name)
        with child(str(tmp_path / name), "60") as process:
            found = reader.credentials(process.pid)
        assert (os.geteuid(), os.getegid(), frozenset(os.getgroups())) == (found.uid, found.gid, found.groups)

    @pytest.mark.parametrize("ask", [ProcReader.stat, ProcReader.credentials])
    def test_nobody(self, reader, ask):
        """Of a pid that is nobody's nothing is told, before and after others were asked for."""
        for _ in range(2):
            with pytest.raises(AttestationFailed, match="gone"):
                ask(reader, NOBODY)
            reader.stat(os.getpid())

    @pytest.mark.root
    @pytest.mark.parametrize("number", [300, GROUPS_PER_CALLER])
    def test_many_groups(self, reader, number):
        """All groups are told, as many as a caller may be in."""
        with child(sys.executable, "-c", IN_GROUPS, str(number)) as process:
            process.stdout.readline()
            assert number == len(reader.credentials(process.pid).groups)

    @pytest.mark.root
    def test_too_many_groups(self, reader, clock):
        """One with more is refused, and its user's processes are not asked about for a moment."""
        with child(sys.executable, "-c", IN_GROUPS, str(GROUPS_PER_CALLER + 1)) as process:
            process.stdout.readline()
            with pytest.raises(TooManyGroups):
                reader.credentials(process.pid)
            with pytest.raises(HeldUp):
                reader.stat(process.pid)
            clock[0] += CROWDED_SECONDS
            assert os.getpid() == reader.stat(process.pid).parent


class TestGivenUp:
    def test_only_its_user(self, reader, clock, impatient):
        """A process that does not answer is given up, and followed by another one. Who held it up is refused until that
        is gone and PROC_HELD_UP_SECONDS are over; nobody else is.
        """
        whose = {os.getpid(): 7}
        with child() as process:
            reader.owner = lambda _: whose[current[0]]
            current = [os.getpid()]
            whose[process.pid] = 8
            stopped = held_up(reader, os.getpid())
            with pytest.raises(HeldUp):
                reader.stat(os.getpid())
            current[0] = process.pid
            assert os.getpid() == reader.stat(process.pid).parent
            assert stopped != reader._reading.process.pid
            current[0] = os.getpid()
            until(lambda: gone(stopped))
            with pytest.raises(HeldUp):
                reader.stat(os.getpid())
            clock[0] += PROC_HELD_UP_SECONDS
            assert os.getppid() == reader.stat(os.getpid()).parent
            assert {} == reader._until

    def test_while_it_hangs(self, reader, clock, impatient, monkeypatch):
        """While what a user's process holds up is still there, nothing is asked about that user's processes."""
        monkeypatch.setattr(module.subprocess.Popen, "kill", lambda _: None)  # as in a wait that no signal ends
        stopped = held_up(reader, os.getpid())
        clock[0] += 100 * PROC_HELD_UP_SECONDS
        for _ in range(2):
            with pytest.raises(HeldUp):
                reader.stat(os.getpid())
        os.kill(stopped, signal.SIGKILL)
        until(lambda: gone(stopped))
        assert os.getppid() == reader.stat(os.getpid()).parent

    def test_while_it_computes(self, reader, monkeypatch):
        """One that takes down another's memory, which keeps a processor busy, is given up without being waited for."""
        monkeypatch.setattr(module, "PROC_ANSWER_SECONDS", float("inf"))
        with monkeypatch.context() as patched:
            patched.setattr(module, "_BEGIN", COMPUTES)
            with pytest.raises(HeldUp):
                reader.stat(os.getpid())
        with pytest.raises(HeldUp, match="of this user"):
            reader.stat(os.getpid())

    def test_one_that_somebody_ends(self, reader):
        """A process that is killed is followed by another one, and nobody is refused."""
        reader.stat(os.getpid())
        os.kill(killed := reader._reading.process.pid, signal.SIGKILL)
        assert os.getppid() == reader.stat(os.getpid()).parent
        assert killed != reader._reading.process.pid

    def test_one_that_cannot_be_started(self, reader, monkeypatch):
        """Without a process that reads, what is asked is refused, and not said to be gone."""
        monkeypatch.setattr(sys, "executable", "/no/such/program")
        with pytest.raises(HeldUp):
            reader.stat(os.getpid())

    def test_after_a_fork(self, reader):
        """A child of a fork asks a process of its own."""
        reader.stat(os.getpid())
        here = reader._reading.process.pid
        pid = os.fork()
        if pid == 0:
            reader.forget()
            same = reader.stat(os.getpid()).parent == os.getppid() and reader._reading.process.pid != here
            reader.close()
            os._exit(0 if same else 1)
        assert 0 == os.waitpid(pid, 0)[1]
        assert os.getppid() == reader.stat(os.getpid()).parent
