"""Which program a process runs: the path at which this machine has it, and the SHA-256 of what runs.

A path is the machine's if the machine's first process has that file there; see `sojourn.attestation.machine`.

Reading a file may take as long as its file system likes, for ever even. So it is done by threads, of which neither one
user nor all file systems that may stand still can take too many, and nobody waits longer than a given time. So is
letting go of it: whoever lets go of the last file of a file system that its user has unmounted takes that down, with
all that is in it.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Final, TypeVar

from sojourn.attestation.machine import machine, mount_namespace
from sojourn.errors import AttestationFailed
from sojourn.limits import PROGRAM_MAX_BYTES, PROGRAMS_PER_UID, SLOW_PROGRAMS_AT_ONCE
from sojourn.quota.fair_semaphore import FairSemaphore

from sojourn_attestors.kernel.digests import Changed, Digests, GivenUp
from sojourn_attestors.kernel.filestatus import FileStatus, OwnFileSystems

_NO_TRACE: Final = "this agent may not look at the program of this process: that takes CAP_SYS_PTRACE, as root has"
_NO_READ: Final = "this agent may not read the file of the program: that takes CAP_DAC_READ_SEARCH, as root has"
_NO_SEARCH: Final = "this agent may not look into the program's folder: that takes CAP_DAC_READ_SEARCH, as root has"
_GONE: Final = "the program was deleted or replaced after it started"
_T = TypeVar("_T")


@dataclass(slots=True)
class Found:
    """What is known of a program. `withheld`: what cannot be proved. `untold`: what could not be told this time."""

    values: set[str] = field(default_factory=set)
    withheld: dict[str, str] = field(default_factory=dict)
    untold: dict[str, str] = field(default_factory=dict)


class Threads:
    """Threads of the pool for reading programs. Belongs to one event loop."""

    def __init__(self, pool: Executor, served: Callable[[int], bool] | None = None) -> None:
        """`served` says of a process whether its program lies where no thread stands still; default: OwnFileSystems."""
        self._pool = pool
        self._served = served or OwnFileSystems().serve
        self._free = FairSemaphore(PROGRAMS_PER_UID)
        # More of them, for what no slow file system is asked for. Containers share users, and what one of them keeps a
        # thread with does not keep the others waiting.
        self._quick = FairSemaphore(PROGRAMS_PER_UID)
        self._slots = asyncio.Semaphore(SLOW_PROGRAMS_AT_ONCE)

    async def start(self, uid: int, pid: int, work: Callable[[], _T], *, long: bool = False) -> "Future[_T]":
        """Have `work` done for a process, once no more than so many threads are taken for its user.

        While many threads are taken, what is on a file system that may stand still, or is `long`, waits for its turn.
        """
        held: FairSemaphore | None = None
        slot = False
        try:
            taken = self._free.locked(uid)
            quick = (taken or self._slots.locked()) and not long and self._served(pid)
            free = self._quick if quick and taken else self._free
            await free.acquire(uid)
            held = free
            if not quick:
                await self._slots.acquire()
                slot = True
            doing = self._pool.submit(work)
        except BaseException:
            self._ended(uid, held, slot)
            raise
        # A thread is taken until it has ended, also when nobody waits for it any more.
        loop = asyncio.get_running_loop()
        doing.add_done_callback(lambda _: _call(loop, lambda: self._ended(uid, held, slot)))
        return doing

    def are_taken(self, uid: int) -> bool:
        """Whether a user has as many threads as there are for one."""
        return self._free.locked(uid)

    def _ended(self, uid: int, held: FairSemaphore | None, slot: bool) -> None:
        if slot:
            self._slots.release()
        if held is not None:
            held.release(uid)


def _call(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(action)
    except RuntimeError:  # the loop is closed: the agent ends
        return


class Programs:
    """Looks at the programs of processes."""

    def __init__(self, pool: Executor, *, path: bool, sha256: bool, max_bytes: int = PROGRAM_MAX_BYTES) -> None:
        self._path = path
        self._sha256 = sha256
        self._max_bytes = max_bytes
        self._threads = Threads(pool)
        self._digests = Digests()

    async def of(self, pid: int, uid: int, seconds: float) -> Found:
        """What the process runs, as far as it can be told within `seconds`. Raise AttestationFailed if it has gone."""
        found = Found()
        try:
            async with asyncio.timeout(seconds):
                await self._look(pid, uid, found)
        except TimeoutError:
            reason = f"the program was not read within {seconds:g} s"
            if self._threads.are_taken(uid):
                reason += ": earlier programs of this user are still being read"
        except (FileNotFoundError, ProcessLookupError) as error:
            raise AttestationFailed("the process has gone or runs no program", detail=str(error)) from error
        except Changed:
            reason = "the program was written to while it was read"
        except OSError as error:
            reason = f"the program cannot be read: {os.strerror(error.errno or 0)}"
        else:
            return found
        told = {value.partition(":")[0] for value in found.values} | found.withheld.keys()
        found.untold.update({kind: reason for kind in self._wanted if kind not in told})
        return found

    @property
    def _wanted(self) -> list[str]:
        return [kind for kind, on in (("path", self._path), ("sha256", self._sha256)) if on]

    async def _look(self, pid: int, uid: int, found: Found) -> None:
        try:
            examining = await self._threads.start(uid, pid, lambda: self._examine(pid))
            file, path, reason = await asyncio.wrap_future(examining)
        except PermissionError:
            found.withheld.update(dict.fromkeys(self._wanted, _NO_TRACE))
            return
        if path:
            found.values.add(f"path:{path}")
        elif self._path:
            found.withheld["path"] = reason
        if self._sha256:
            await self._digest(file, pid, uid, found)

    def _examine(self, pid: int) -> tuple[FileStatus, str, str]:
        """In a thread: the file that a process runs, its path on this machine or '', and why there is none."""
        with _open(pid) as descriptor:
            file = FileStatus.of(descriptor)
            path, reason = _host_path(pid, file) if self._path else ("", "")
        return file, path, reason

    async def _digest(self, file: FileStatus, pid: int, uid: int, found: Found) -> None:
        if not stat.S_ISREG(file.mode):
            found.withheld["sha256"] = "the program is not a regular file"
            return
        if file.size > self._max_bytes:
            found.withheld["sha256"] = f"the program is larger than {self._max_bytes} bytes"
            return
        digest = self._digests.known(file)
        while digest is None:
            coming, ours = self._digests.begin(file)
            try:
                if ours:
                    await self._compute(file, pid, uid, coming)
                digest = await asyncio.wrap_future(coming)
            except PermissionError as error:
                found.withheld["sha256"] = _NO_READ if isinstance(error, _NotReadable) else _NO_TRACE
                return
            except GivenUp:
                continue
        found.values.add(f"sha256:{digest}")

    async def _compute(self, file: FileStatus, pid: int, uid: int, coming: "Future[str]") -> None:
        """Have the digest computed, and wait for the thread. It goes on also when nobody waits for it any more.

        Raise Changed or OSError for what is of this process, which may run the file no more or be hidden from this
        agent by now: others that run it are not told so.
        """

        def compute() -> Exception | None:
            try:
                reading = _open_again(pid, file)
            except _NotReadable as error:  # by nobody here, whoever runs it
                self._digests.give_up(file, coming, error)
                return None
            except (OSError, Changed, MemoryError) as error:
                self._digests.give_up(file, coming)
                return error
            self._digests.compute(file, reading, coming)
            return None

        try:
            doing = await self._threads.start(uid, pid, compute, long=file.size > PROGRAM_MAX_BYTES)
        except BaseException:
            self._digests.give_up(file, coming)
            raise
        error = await asyncio.shield(asyncio.wrap_future(doing))
        if error is not None:
            raise error


class _NotReadable(PermissionError):
    """The agent may not read the file."""


@contextlib.contextmanager
def _open(pid: int) -> Iterator[int]:
    """The file that a process runs, open but not for reading. In a thread."""
    descriptor = os.open(f"/proc/{pid}/exe", os.O_PATH | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_again(pid: int, file: FileStatus) -> int:
    """The same file, open for reading. Raise Changed if the process runs another one, or it was written to; OSError."""
    with _open(pid) as descriptor:
        if FileStatus.of(descriptor).key != file.key:
            raise Changed
        try:
            return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError as error:
            raise _NotReadable from error


def _host_path(pid: int, running: FileStatus) -> tuple[str, str]:
    """The path at which this host has the file that the process runs, or '' and the reason why there is none."""
    path = os.readlink(f"/proc/{pid}/exe")
    if mount_namespace(pid) != machine().namespace():
        return "", f"the process is in another mount namespace{_than_which()}, where paths can be forged"
    try:
        host = machine().status_of(path)
    except PermissionError:
        return "", _NO_SEARCH
    except OSError:
        return "", _GONE
    if (host.st_dev, host.st_ino) != running.identity:
        return "", _GONE
    if not path.startswith("/"):
        return "", "the program has no path on this machine"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "", "the program's path is not UTF-8"
    return path, ""


def _than_which() -> str:
    """Whose namespace is compared with, where that is not what one expects."""
    return f" than this agent ({machine().doubt})" if machine().apart and machine().doubt else ""
