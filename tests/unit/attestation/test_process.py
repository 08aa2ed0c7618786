"""process.py: a process pinned by the kernel. All of them are real."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.children import child, holder_of, waiting_child
from harness.cgroups import cgroup
from harness.looking import PIDFD, OpenFiles, until
from sojourn.attestation import descent
from sojourn.attestation import process as process_module
from sojourn.attestation.descent import parent_and_birth
from sojourn.attestation.proc_reader import HeldUp
from sojourn.attestation.process import Ids, Process, Program
from sojourn.errors import AttestationFailed
from sojourn.limits import DOOMED_LOOK_SECONDS

DEADLINE_SECONDS = 20
KERNELS = pytest.mark.parametrize("old_kernel", ["this", "old"], indirect=True)
EXECS = "os.execv(sys.argv[1], sys.argv[1:2])"  # a program that is set to run as another user


@pytest.fixture
def pinned(running):
    process = holder_of(running)
    yield process
    process.close()


@pytest.fixture
def old_kernel(request, monkeypatch):
    """Whether it is one that tells little of a process by its pidfd, as before Linux 6.9."""
    if old := request.param == "old":
        monkeypatch.setattr(descent, "info_of", lambda *_: None)
        descent.tells.cache_clear()
    yield old or not descent.tells()
    descent.tells.cache_clear()


def end(process):
    process.kill()
    process.wait()


@KERNELS
def test_key(old_kernel, running):
    """Each handle on a process has its key, and none on another."""
    first, second = holder_of(running), holder_of(running)
    third = second.again()
    with child() as process:
        other = holder_of(process)
        assert first.key == second.key == third.key != other.key
        assert first.birth < other.birth or old_kernel
        assert [parent_and_birth(each.pid) for each in (first, other)] == [
            (os.getpid(), each.birth) for each in (first, other)
        ]
        other.close()
    for each in (first, second, third):
        each.close()
    with pytest.raises(ProcessLookupError):
        parent_and_birth(2**22 + 1)


class TestPin:
    def test_of_a_living_one(self, running, pinned):
        """A living process is pinned by its pid."""
        text = Path(f"/proc/{running.pid}/stat").read_text("ascii")
        start_time = int(text[text.rfind(")") + 2 :].split()[19])
        assert (running.pid, start_time, False) == (pinned.pid, pinned.start_time, pinned.exited)
        pinned.check_alive()

    @pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**31 - 1])
    def test_of_none(self, pid):
        """A pid that is nobody's is refused."""
        with pytest.raises(AttestationFailed):
            Process.open(pid)

    def test_of_one_that_has_gone(self, running):
        """A process that has ended is refused, collected or not, and no descriptor is left."""
        running.kill()
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
        before = OpenFiles()
        for _ in ("not collected", "collected"):
            with pytest.raises(AttestationFailed):
                Process.open(running.pid)
            running.wait()
        assert [] == before.opened_since()

    def test_a_descriptor_is_owned(self, running):
        """The descriptor that is handed over is closed also when pinning fails."""
        pidfd = os.pidfd_open(running.pid)
        end(running)
        with pytest.raises(AttestationFailed):
            Process(running.pid, pidfd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(pidfd)

    def test_end_is_seen(self, running, pinned):
        """When the process has ended that shows, and stays so."""
        end(running)
        assert pinned.exited
        with pytest.raises(AttestationFailed):
            pinned.check_alive()

    def test_again(self, running, pinned):
        """A second handle lives on when the first is closed."""
        second = pinned.again()
        pinned.close()
        assert (True, False) == (pinned.exited, second.exited)
        second.close()

    def test_not_again_once_closed(self, running):
        """Of a handle that was closed meanwhile, as its caller has left, there is no second one."""
        process = Process.open(running.pid)
        process.close()
        with pytest.raises(AttestationFailed, match="gone"):
            process.again()

    def test_close(self, running):
        """Closing gives the descriptor back, once."""
        before = OpenFiles()
        process = holder_of(running)
        process.close()
        process.close()
        assert [] == before.opened_since()


class TestCgroup:
    def test_is_our_own(self, pinned):
        """A child is in the cgroups of its parent."""
        assert Path("/proc/self/cgroup").read_text() == pinned.cgroup()

    def test_of_one_that_has_gone(self, running, pinned):
        """A process that is gone is in no cgroup."""
        end(running)
        with pytest.raises(AttestationFailed):
            pinned.cgroup()


class TestKeptOpen:
    def test_of_one_that_has_gone(self, running, pinned):
        """Files that were kept open tell nothing once their process has gone."""
        pinned.keep_open()
        assert (os.geteuid(), Path("/proc/self/cgroup").read_text()) == (pinned.ids().uid, pinned.cgroup())
        end(running)
        with pytest.raises(AttestationFailed):
            pinned.ids()
        with pytest.raises(AttestationFailed):
            pinned.cgroup()

    @pytest.mark.root
    def test_a_cgroup_that_changes(self, running, pinned):
        """A process that is moved is seen to be elsewhere by the next look."""
        pinned.keep_open()
        before = pinned.cgroup()
        with cgroup("kept-open") as elsewhere:
            elsewhere.take(running.pid)
            assert before != pinned.cgroup() == Path(f"/proc/{running.pid}/cgroup").read_text()
            end(running)

    def test_more_than_a_block(self, pinned, monkeypatch):
        """What does not fit into one read is read whole."""
        monkeypatch.setattr(process_module, "_BLOCK_BYTES", 16)
        whole = pinned.cgroup()
        pinned.keep_open()
        assert whole == pinned.cgroup()

    def test_descriptors(self, running):
        """Files that are kept open are closed when they are let go of, with the handle, and if the process had gone."""
        before = OpenFiles()
        process = holder_of(running)
        process.keep_open()
        process.keep_open()
        process.let_go()
        assert 1 == len(before.opened_since(*PIDFD)) == len(before.opened_since())
        process.keep_open()
        process.close()
        assert [] == before.opened_since()
        process = holder_of(running)
        end(running)
        process.keep_open()
        process.close()
        assert [] == before.opened_since()


class TestExit:
    async def test_is_told_once(self, running, pinned):
        """The action runs once when the process ends."""
        told = []
        over = asyncio.Event()
        pinned.on_exit(lambda: (told.append(1), over.set()))
        running.kill()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await over.wait()
        await asyncio.sleep(0)
        assert [1] == told

    async def test_is_told_of_one_that_had_gone(self, running, pinned):
        """The action runs as well if the process had ended before."""
        end(running)
        over = asyncio.Event()
        pinned.on_exit(over.set)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await over.wait()

    async def test_not_after_close(self, running):
        """Whoever closed the handle hears nothing more."""
        told = []
        process = holder_of(running)
        process.on_exit(lambda: told.append(1))
        process.close()
        other = holder_of(running)
        over = asyncio.Event()
        other.on_exit(over.set)
        running.kill()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await over.wait()
        other.close()
        assert [] == told

    def test_status_of_a_living_one(self, pinned):
        """A living process has no exit status."""
        assert pinned.exit_status() is None

    @pytest.mark.parametrize("killed", [True, False])
    def test_status(self, killed):
        """The status is 0 only for a process that returned 0; where the kernel does not tell it is None."""
        with waiting_child() as process:
            pinned = holder_of(process)
            if killed:
                process.kill()
            process.communicate()
            status = pinned.exit_status()
            pinned.close()
        assert status in ({None, 9} if killed else {None, 0})


class TestWhatItRuns:
    def test_program(self, pinned):
        """The program is told by device and inode of the file that runs."""
        status = os.stat(shutil.which("sleep"))
        assert Program(status.st_dev, status.st_ino) == pinned.program()
        assert os.path.realpath(shutil.which("sleep")) == pinned.program_path()

    def test_of_one_that_has_gone(self, running, pinned):
        """A process that has gone runs nothing."""
        end(running)
        with pytest.raises(AttestationFailed):
            pinned.program()
        assert "" == pinned.program_path()

    def test_ids(self, pinned):
        """Effective ids are read from the kernel."""
        assert Ids(os.geteuid(), os.getegid()) == pinned.ids()

    @pytest.mark.root
    @pytest.mark.parametrize("kept_open", [False, True])
    @pytest.mark.parametrize("change", ["os.setegid(4001)", "os.seteuid(4001)", EXECS])
    def test_ids_that_change(self, tmp_path, change, kept_open):
        """Each look is a new one: ids that a process takes on are seen by the next, and so is their return."""
        setuid = shutil.copy(shutil.which("cat"), tmp_path / "setuid")
        os.chown(setuid, 4001, 4001)
        os.chmod(setuid, 0o4755)
        code = f"import os,sys; print(); os.read(0, 1); {change}; print('', flush=True); os.read(0, 1)"
        with child(sys.executable, "-u", "-c", code, setuid) as process:
            process.stdout.readline()
            pinned = holder_of(process)
            if kept_open:
                pinned.keep_open()
            before = [pinned.ids() for _ in range(2)]
            process.stdin.write(b"\n\n" if change == EXECS else b"\n")  # cat gives the second one back
            process.stdin.flush()
            process.stdout.readline()
            after = pinned.ids()
            pinned.close()
        assert before[0] == before[1] != after
        assert 4001 in {after.uid, after.gid}

    def test_doomed(self, running, pinned, monkeypatch):
        """That a signal has ended it is looked at once in DOOMED_LOOK_SECONDS, and told of what has flags that say so."""
        found = process_module.reader.stat(running.pid)
        answers = [found, *[replace(found, flags=found.flags | 0x400)] * 2]
        now = [100.0]
        monkeypatch.setattr(process_module, "monotonic", lambda: now[0])
        monkeypatch.setattr(process_module.reader, "stat", lambda _: answers.pop(0))
        assert [False, False] == [pinned.doomed(anew=False) for _ in range(2)]
        now[0] += DOOMED_LOOK_SECONDS
        assert pinned.doomed(anew=False)
        assert pinned.doomed(anew=True)


class TestLogin:
    def test_is_the_kernels(self, pinned):
        """The login user is what the kernel says, or not known."""
        text = Path(f"/proc/{pinned.pid}/loginuid").read_text() if Path("/proc/self/loginuid").exists() else ""
        assert (None if text in {"", "4294967295"} else int(text)) == pinned.login_uid()

    @pytest.mark.root
    def test_one_that_logged_in(self):
        """A process that was given a login user has it, also as another user."""
        with child("sh", "-c", "echo 4711 > /proc/self/loginuid; echo; exec setpriv --reuid 4001 cat") as process:
            process.stdout.readline()
            pinned = holder_of(process)
            text = Path(f"/proc/{process.pid}/loginuid").read_text()
            found = pinned.login_uid()
            pinned.close()
        if text != "4711":
            pytest.skip("this kernel has no login users, or we have one already")
        assert 4711 == found

    def test_of_one_that_has_gone(self, running, pinned):
        """Of a process that has gone nothing is said."""
        end(running)
        with pytest.raises(AttestationFailed):
            pinned.login_uid()


class TestDescent:
    @KERNELS
    def test_from_its_parent(self, old_kernel, pinned):
        """A child descends from its parent and from itself, and not the other way."""
        parent = Process.open(os.getpid())
        assert (True, True, False) == (
            pinned.descends_from(parent),
            pinned.descends_from(pinned),
            parent.descends_from(pinned),
        )
        parent.close()

    @KERNELS
    def test_not_from_a_sibling(self, old_kernel, pinned):
        """Siblings do not descend from each other."""
        with child() as other:
            sibling = holder_of(other)
            assert not pinned.descends_from(sibling)
            sibling.close()

    @KERNELS
    def test_from_its_grandparent(self, old_kernel):
        """A grandchild descends from the grandparent, over a living parent."""
        code = "import subprocess,sys; p=subprocess.Popen(['sleep','60']); print(p.pid,flush=True); sys.stdin.read(); p.kill(); p.wait()"
        with child(sys.executable, "-c", code) as middle:
            pid = int(middle.stdout.readline())
            grandchild, grandparent = Process.open(pid), Process.open(os.getpid())
            assert grandchild.descends_from(grandparent)
            grandchild.close()
            grandparent.close()
            middle.communicate()

    @KERNELS
    def test_ancestors(self, old_kernel, pinned):
        """A process has its parent first among what it descends from, then that one's parent, and so on: all of them."""
        found, is_all = pinned.ancestors()
        above = Process.open(os.getpid())
        assert (above.key, True) == (found[0], is_all)
        assert (found[1:], True) == above.ancestors()
        above.close()

    @KERNELS
    def test_the_same_ancestors(self, old_kernel, pinned, monkeypatch):
        """What a process was found to descend from is told again, without another look at all of it where the kernel
        says that it has the same parent.
        """
        found, _ = pinned.ancestors()
        seen, real = [], process_module.line_of
        monkeypatch.setattr(process_module, "line_of", lambda *of: (seen.append(of), real(*of))[1])
        assert (found, True) == pinned.ancestors(found)
        assert old_kernel == bool(seen)

    def test_another_parent(self):
        """A process whose parent has ended descends from what it has now, whatever it was found to descend from."""
        with child("sh", "-c", "sh -c 'sleep 60 >/dev/null & echo $!; wait' & wait") as outer:
            orphan = Process.open(int(outer.stdout.readline()))
            before, _ = orphan.ancestors()
            parent, _ = before[0]
            os.kill(parent, signal.SIGKILL)
            until(lambda: orphan.parent != parent)
            after, is_all = orphan.ancestors(before)
            assert (True, False) == (is_all, before[0] in after)
            assert set(after) < set(before)
            os.kill(orphan.pid, signal.SIGKILL)
            orphan.close()

    @KERNELS
    @pytest.mark.parametrize("fault", ["gone", "pid-used-again"])
    def test_not_all_ancestors(self, old_kernel, pinned, monkeypatch, fault):
        """Where an ancestor has gone while it was looked at, what is told says that it may not be all."""
        real, (own, _) = descent.look, pinned.ancestors()

        def look(pid, pidfd):
            if pid != own[1][0]:
                return real(pid, pidfd)
            if fault == "gone":
                raise AttestationFailed("the process has gone")
            return real(pid, pidfd)[0], 2**62

        monkeypatch.setattr(descent, "look", look)
        assert (own[:1], False) == pinned.ancestors()

    @KERNELS
    def test_that_cannot_be_told(self, old_kernel, pinned, monkeypatch):
        """Where it cannot be told for now what an ancestor is, nothing is said of the others either."""
        real, (own, _) = descent.look, pinned.ancestors()

        def look(pid, pidfd):
            if pid == own[1][0]:
                raise HeldUp("not for now")
            return real(pid, pidfd)

        monkeypatch.setattr(descent, "look", look)
        with pytest.raises(HeldUp):
            pinned.ancestors()
        with pytest.raises(HeldUp):
            parent_and_birth(own[1][0])

    @KERNELS
    def test_too_many_ancestors(self, old_kernel, pinned, monkeypatch):
        """No more are looked at than ANCESTORS_WALKED, and what is told says that it is not all."""
        own, _ = pinned.ancestors()
        monkeypatch.setattr(descent, "ANCESTORS_WALKED", 1)
        assert (own[:1], False) == pinned.ancestors()

    @KERNELS
    def test_not_from_one_that_has_gone(self, old_kernel, running, pinned):
        """Nobody descends from a process that has ended."""
        with child() as other:
            ancestor = holder_of(other)
            end(other)
            assert not pinned.descends_from(ancestor)
            ancestor.close()


def test_handles_are_not_inherited(pinned):
    """A child that is started later does not get the descriptor."""
    code = "import os; print(*[os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n != '3'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, close_fds=False)
    assert "pidfd" not in done.stdout
