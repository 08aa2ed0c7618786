"""programs.py: threads for programs that may never be read. Processes, files and threads are real."""

import asyncio
import contextlib
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.children import child
from harness.looking import OpenFiles, until
from sojourn.errors import AttestationFailed
from sojourn.limits import (
    BLOCKING_THREADS,
    MACHINE_MOUNTS_FRESH_SECONDS,
    PROGRAMS_PER_UID,
    SLOW_PROGRAMS_AT_ONCE,
)
from sojourn_attestors.kernel import filestatus
from sojourn_attestors.kernel import programs as programs_module
from sojourn_attestors.kernel.digests import Changed, Digests
from sojourn_attestors.kernel.filestatus import FileStatus, OwnFileSystems
from sojourn_attestors.kernel.programs import Programs, Threads

PATIENCE = 20.0


@pytest.fixture
def pool():
    with ThreadPoolExecutor(BLOCKING_THREADS) as pool:
        yield pool


@pytest.fixture
def running(tmp_path):
    path = tmp_path / "program"
    shutil.copy(shutil.which("sleep"), path)
    with child(str(path), "60") as process:
        yield process


@pytest.fixture
def stalled(monkeypatch):
    """Programs whose reading goes on once this is set."""
    going_on = threading.Event()
    real = Digests._read

    def read(*arguments):
        going_on.wait(PATIENCE)
        return real(*arguments)

    monkeypatch.setattr(Digests, "_read", staticmethod(read))
    yield going_on
    going_on.set()


def kinds(found):
    return {value.partition(":")[0] for value in found.values}


async def idle(threads):
    """Wait until no thread is taken."""
    async with asyncio.timeout(PATIENCE):
        while len(threads._free) or len(threads._quick):
            await asyncio.sleep(0.01)


class TestPrograms:
    @pytest.mark.full
    async def test_that_is_not_read_in_time(self, pool, running, stalled):
        """What takes too long is not known, which is not the same as not so; the path, which needs no reading, is."""
        programs = Programs(pool, path=True, sha256=True)
        found = await programs.of(running.pid, 1, 0.1)
        assert ({"path"}, {"sha256"}, {}) == (kinds(found), set(found.untold), found.withheld)
        assert "not read within" in found.untold["sha256"]

    async def test_that_was_read_at_last(self, pool, running, stalled):
        """A program that took too long is read to its end, and no thread or descriptor is left over."""
        programs = Programs(pool, path=True, sha256=True)
        before = OpenFiles()
        await programs.of(running.pid, 1, 0.1)
        stalled.set()
        await idle(programs._threads)
        assert {"path", "sha256"} == kinds(await programs.of(running.pid, 1, PATIENCE))
        await idle(programs._threads)
        assert ([], {}) == (before.opened_since(), programs._digests._computing)

    async def test_one_users(self, pool, running, stalled):
        """While programs of a user are still being read, though nobody waits any more, that user gets no more threads.

        Nobody else is told so.
        """
        programs = Programs(pool, path=True, sha256=True)
        for _ in range(2 * PROGRAMS_PER_UID):
            await programs.of(running.pid, 1, 0.05)
        found = await programs.of(running.pid, 1, 0.05)
        assert {"path", "sha256"} == set(found.untold)
        assert "still being read" in found.untold["path"]
        stalled.set()
        assert {"path", "sha256"} == kinds(await programs.of(running.pid, 2, PATIENCE))
        await idle(programs._threads)
        assert {"path", "sha256"} == kinds(await programs.of(running.pid, 1, PATIENCE))

    async def test_many_at_once(self, pool, running):
        """Of many processes of a user that are asked about at once each is read in its turn."""
        programs = Programs(pool, path=True, sha256=True)
        found = await asyncio.gather(*(programs.of(running.pid, 1, PATIENCE) for _ in range(50)))
        assert [{"path", "sha256"}] * 50 == [kinds(each) for each in found]

    async def test_one_after_the_other(self, pool, running, monkeypatch):
        """A user whose programs are read one after the other is never told that they are still being read."""
        monkeypatch.setattr(Digests, "known", lambda *_: None)
        programs = Programs(pool, path=True, sha256=True)
        for _ in range(200):
            assert {} == (await programs.of(running.pid, 1, PATIENCE)).untold

    async def test_that_cannot_be_read(self, pool, running, monkeypatch):
        """If reading fails, that is not known this time, with the kernel's reason."""

        def fail(*_):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(Digests, "_read", staticmethod(fail))
        found = await Programs(pool, path=True, sha256=True).of(running.pid, 1, PATIENCE)
        assert ({"path"}, {"sha256": "the program cannot be read: Input/output error"}) == (kinds(found), found.untold)

    async def test_nobody_waits_any_more(self, pool, running, monkeypatch):
        """Callers that go away while a program is opened leave no descriptor behind."""
        programs = Programs(pool, path=True, sha256=True)
        opened, going_on = threading.Event(), threading.Event()
        real = FileStatus.of

        def slowly(descriptor):
            opened.set()
            going_on.wait(PATIENCE)
            return real(descriptor)

        monkeypatch.setattr(FileStatus, "of", slowly)
        before = OpenFiles()
        asking = asyncio.ensure_future(programs.of(running.pid, 1, PATIENCE))
        await asyncio.to_thread(opened.wait, PATIENCE)
        assert before.opened_since()
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        going_on.set()
        await idle(programs._threads)
        assert [] == before.opened_since()

    async def test_let_go_by_threads(self, pool, running, monkeypatch):
        """The loop never lets go of a program, which may take down the file system that it is the last file of."""
        name, real, let_go = os.readlink(f"/proc/{running.pid}/exe"), os.close, []

        def close(descriptor):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{descriptor}") == name:
                    let_go.append(threading.current_thread())
            real(descriptor)

        monkeypatch.setattr(os, "close", close)
        programs = Programs(pool, path=True, sha256=True)
        await programs.of(running.pid, 1, PATIENCE)
        for rounds in range(20):
            asking = asyncio.ensure_future(programs.of(running.pid, 1, PATIENCE))
            for _ in range(rounds):
                await asyncio.sleep(0.0002)
            asking.cancel()
            await asyncio.wait([asking])
        await idle(programs._threads)
        assert let_go
        assert threading.current_thread() not in let_go

    async def test_another_program_meanwhile(self, pool, running, tmp_path, monkeypatch):
        """Of a process that runs another program when it is to be read, no digest is told: others that wait for that of
        the first program have it computed by another of theirs.
        """
        programs = Programs(pool, path=False, sha256=True)
        asked = []
        real = programs_module._open_again

        def open_again(pid, file):
            asked.append(pid)
            if len(asked) == 1:
                raise Changed
            return real(pid, file)

        monkeypatch.setattr(programs_module, "_open_again", open_again)
        monkeypatch.setattr(Digests, "_settled", lambda *_: True)
        found = await asyncio.gather(*(programs.of(running.pid, uid, PATIENCE) for uid in (1, 2)))
        assert [[], ["sha256"]] == sorted(sorted(each.untold) for each in found)
        assert [[], ["sha256"]] == sorted(sorted(kinds(each)) for each in found)

    async def test_hidden_meanwhile(self, pool, running, monkeypatch):
        """A process that hides itself before it is read has its own digest withheld, and nobody else's."""
        programs = Programs(pool, path=False, sha256=True)
        asked, real = [], programs_module._open_again

        def open_again(pid, file):
            asked.append(pid)
            if len(asked) == 1:
                raise PermissionError(13, "it is not to be traced")
            return real(pid, file)

        monkeypatch.setattr(programs_module, "_open_again", open_again)
        monkeypatch.setattr(Digests, "_settled", lambda *_: True)
        found = await asyncio.gather(*(programs.of(running.pid, uid, PATIENCE) for uid in (1, 2)))
        assert [[], ["sha256"]] == sorted(sorted(kinds(each)) for each in found)
        assert ["CAP_SYS_PTRACE" in why for each in found for why in each.withheld.values()] == [True]

    async def test_gone_meanwhile(self, pool, running, monkeypatch):
        """A process that has gone when it is to be read is said to have gone."""
        real = programs_module._open_again

        def open_again(pid, file):
            running.kill()
            running.wait()
            return real(pid, file)

        monkeypatch.setattr(programs_module, "_open_again", open_again)
        with pytest.raises(AttestationFailed, match="gone"):
            await Programs(pool, path=True, sha256=True).of(running.pid, 1, PATIENCE)


class TestThreads:
    async def test_of_file_systems_that_stand_still(self, pool):
        """Programs of many users on file systems that stand still take half of the threads, and the others go on."""
        going_on = threading.Event()
        threads = Threads(pool, served=lambda pid: pid == 1)
        async with asyncio.timeout(PATIENCE):
            for number in range(SLOW_PROGRAMS_AT_ONCE):
                await threads.start(number, 2, lambda: going_on.wait(PATIENCE))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await threads.start(50, 2, lambda: True)
            for number in range(60, 70):
                assert 7 == await asyncio.wrap_future(await threads.start(number, 1, lambda: 7))
            going_on.set()
            assert 8 == await asyncio.wrap_future(await threads.start(50, 2, lambda: 8))
        await idle(threads)
        assert SLOW_PROGRAMS_AT_ONCE == threads._slots._value

    async def test_what_is_long(self, pool):
        """What takes long by its size is among those, wherever it lies."""
        going_on = threading.Event()
        threads = Threads(pool, served=lambda _: True)
        for number in range(SLOW_PROGRAMS_AT_ONCE):
            await threads.start(number, 1, lambda: going_on.wait(PATIENCE), long=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await threads.start(50, 1, lambda: True, long=True)
        assert 7 == await asyncio.wrap_future(await threads.start(51, 1, lambda: 7))
        going_on.set()
        await idle(threads)

    async def test_of_one_user(self, pool):
        """One user has few of them; more waits until one has ended."""
        going_on = threading.Event()
        threads = Threads(pool, served=lambda _: False)
        for _ in range(PROGRAMS_PER_UID):
            await threads.start(1, 1, lambda: going_on.wait(PATIENCE))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await threads.start(1, 1, lambda: True)
        assert (True, False) == (threads.are_taken(1), threads.are_taken(2))
        going_on.set()
        assert 7 == await asyncio.wrap_future(await threads.start(1, 1, lambda: 7))
        await idle(threads)

    async def test_of_one_user_in_many_containers(self, pool):
        """What of a user's is on file systems that stand still does not hold up what is not, nor that all others."""
        going_on = threading.Event()
        threads = Threads(pool, served=lambda pid: pid == 1)
        async with asyncio.timeout(PATIENCE):
            for _ in range(PROGRAMS_PER_UID):
                await threads.start(0, 2, lambda: going_on.wait(PATIENCE))
            for _ in range(20):
                assert 7 == await asyncio.wrap_future(await threads.start(0, 1, lambda: 7))
            for _ in range(PROGRAMS_PER_UID):
                await threads.start(0, 1, lambda: going_on.wait(PATIENCE))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await threads.start(0, 1, lambda: True)
            assert 8 == await asyncio.wrap_future(await threads.start(1, 2, lambda: 8))
        going_on.set()
        await idle(threads)


class TestOwnFileSystems:
    def test_an_ordinary_program(self, running):
        """A program on a disk of this machine is served by this kernel."""
        assert OwnFileSystems().serve(running.pid)

    def test_a_program_in_memory(self):
        """A program in memory is on no mount that could be looked up: it is not said to be."""
        descriptor = os.memfd_create("program", 0)
        with open(shutil.which("sleep"), "rb") as file:
            os.write(descriptor, file.read())
        with child(f"/proc/{os.getpid()}/fd/{descriptor}", "60") as process:
            assert not OwnFileSystems().serve(process.pid)
        os.close(descriptor)

    @pytest.mark.root
    @pytest.mark.parametrize(
        ("before", "served"),
        [("", True), ("mount -t tmpfs tmpfs /mnt && cp $(command -v sleep) /mnt/sleep && PATH=/mnt:$PATH &&", False)],
    )
    def test_in_a_user_namespace(self, before, served):
        """The machine's own disks are that also for a root of a user namespace; what they have mounted there is not."""
        with child("unshare", "-Urm", "sh", "-c", f"{before} exec sleep 60") as process:
            until(lambda: os.readlink(f"/proc/{process.pid}/exe").endswith("sleep"))
            assert served is OwnFileSystems().serve(process.pid)

    def test_what_was_mounted_since(self, running, monkeypatch):
        """What the machine has mounted since the last look is looked for after a moment."""
        now, real = [0.0], filestatus.mounts_of
        own = OwnFileSystems(lambda: now[0])
        monkeypatch.setattr(filestatus, "mounts_of", lambda _: iter(()))
        assert not own.serve(running.pid)
        monkeypatch.setattr(filestatus, "mounts_of", real)
        assert not own.serve(running.pid)
        now[0] += MACHINE_MOUNTS_FRESH_SECONDS
        assert own.serve(running.pid)

    def test_gone(self, running):
        """Of a process that has gone no program is told."""
        running.kill()
        running.wait()
        assert not OwnFileSystems().serve(running.pid)
