"""The processes that tasks live with: one handle for each process, however many tasks it holds."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import structlog

from sojourn.attestation.process import Process, Program
from sojourn.errors import AttestationFailed, LimitExceeded
from sojourn.limits import TASKS_ENDED_AT_ONCE
from sojourn.quota.usage import Usage
from sojourn.runtime.hooks import Hooks
from sojourn.tasktoken.end_reasons import ATTESTATION_CHANGED, HOLDER_EXITED

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Held:
    process: Process
    user: int  # as whose it counts
    program: Program | None  # what the process ran when it was first held
    cgroup: str  # where it was then
    cgroup_digest: str
    holds: int = 0  # on it: it is kept until the last one is released
    told: "dict[Hold, None]" = field(default_factory=dict)  # those of whose task is to be told

    def lost(self) -> str:
        """Why the process holds nothing any more: it has gone, or changed its program or cgroup since it was held."""
        try:
            same = self.process.program() == self.program and self.process.cgroup() == self.cgroup
            doomed = self.process.doomed
        except AttestationFailed:  # it may be ending: its program goes before the kernel says so
            return HOLDER_EXITED
        if doomed or self.process.exited:
            return HOLDER_EXITED
        return "" if same else ATTESTATION_CHANGED


class NoProcess(Process):
    """Stands where a process would: the holder of a task whose client is on another machine. It never exits."""

    __slots__ = ()

    def __init__(self) -> None:
        self.pid = self.start_time = 0
        self._pidfd, self._loop = -1, None

    @property
    def exited(self) -> bool:
        return False

    def again(self) -> "NoProcess":
        return self

    def program_path(self) -> str:
        return ""

    def close(self) -> None:
        """There is nothing to let go of."""


class Hold:
    """One task's hold on a process. `release` it; the process may be held by other tasks too.

    There may be a hundred thousand, so that all on a process share what there is to say of it.
    """

    __slots__ = ("_held", "_holders", "_task")

    def __init__(self, holders: "Holders | None", held: _Held) -> None:
        """`holders` None: there is nothing to let go of."""
        self._holders = holders
        self._held = held
        self._task: Any = None

    @property
    def of(self) -> Any:
        """The task, of which is told when the process has ended; None: nobody is told."""
        return self._task

    @of.setter
    def of(self, task: Any) -> None:
        self._task = task
        if task is None or self._holders is None:
            self._held.told.pop(self, None)
        else:
            self._held.told[self] = None

    @property
    def process(self) -> Process:
        return self._held.process

    @property
    def program(self) -> Program | None:
        """What the process ran when it was first held."""
        return self._held.program

    @property
    def cgroup_digest(self) -> str:
        """Of where it was then."""
        return self._held.cgroup_digest

    @property
    def pid(self) -> int:
        return self._held.process.pid

    def release(self) -> None:
        """Let go of the process, if that was not done before."""
        self.of = None  # which has the hold: nothing is left for the garbage collector
        holders, self._holders = self._holders, None
        if holders is not None:
            holders.let_go(self._held)


class Holders:
    """All processes that hold tasks: at most `maximum`, since each takes a descriptor, and half of those for a user."""

    def __init__(self, maximum: int, owner: Callable[[int], int] = lambda uid: uid) -> None:
        """`owner`: the user who may become a uid."""
        self._maximum = maximum
        self.owner = owner
        self._per_user = Usage[int]()
        self._held: dict[tuple[int, int], _Held] = {}
        self._nobody = _Held(NoProcess(), 0, None, "", _digest(""))  # of all whose clients are on other machines
        self.on_exit: Hooks[[Any]] = Hooks()  # with what was held, once for each hold

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, process: Process, uid: int) -> Hold:
        """Hold a process of `uid`, which this takes ownership of.

        Raise LimitExceeded if too many processes are held, AttestationFailed if it has gone already.
        """
        key = (process.pid, process.start_time)
        if isinstance(process, NoProcess):
            return Hold(None, self._nobody)
        user = self.owner(uid)
        held = self._held.get(key)
        try:
            if held is None and (len(self._held) >= self._maximum or self._per_user[user] * 2 >= self._maximum):
                raise LimitExceeded("too many processes hold tasks")
            # One that is held already is judged by what it was when it was first held.
            program, cgroup = (process.program(), process.cgroup()) if held is None else (held.program, held.cgroup)
            process.check_alive()
        except BaseException:
            process.close()
            raise
        if held is None:
            held = self._held[key] = _Held(process, user, program, cgroup, _digest(cgroup))
            self._per_user.add(user)
            process.on_exit(lambda: self._exited(key))
        else:
            process.close()
        held.holds += 1
        return Hold(self, held)

    def let_go(self, held: _Held) -> None:
        """One hold less on a process."""
        held.holds -= 1
        if not held.holds:
            del self._held[held.process.pid, held.process.start_time]
            self._per_user.remove(held.user)
            held.process.close()

    def lost(self, hold: Hold) -> str:
        """HOLDER_EXITED, ATTESTATION_CHANGED if its program or cgroup did since it was first held, or ''."""
        if isinstance(hold.process, NoProcess):
            return ""
        held = self._held.get((hold.process.pid, hold.process.start_time))
        return HOLDER_EXITED if held is None else held.lost()

    @property
    def keys(self) -> list[tuple[int, int]]:
        """The processes that are held, each by pid and start time."""
        return list(self._held)

    def lost_of(self, keys: Iterable[tuple[int, int]]) -> dict[Hold, str]:
        """Why those of these processes that are lost hold nothing any more: each process is looked at once."""
        found = [self._held[key] for key in keys if key in self._held]
        return {hold: why for held in found if (why := held.lost()) for hold in held.told}

    def _exited(self, key: tuple[int, int]) -> None:
        if key in self._held:
            self._tell_some(key, iter(list(self._held[key].told)))

    def _tell_some(self, key: tuple[int, int], holds: Iterator[Hold]) -> None:
        """Tell of some holds on a process that has ended, and of the others behind what others have asked for: a task
        of which nobody has heard yet is found over by whoever uses it.
        """
        held, some = self._held.get(key), list(islice(holds, TASKS_ENDED_AT_ONCE))
        if held is None or not some:
            return
        for hold in some:
            if hold not in held.told:
                continue
            try:
                self.on_exit.tell(hold.of)
            except Exception:
                log.exception("holder_exit_failed", pid=held.process.pid)
        if len(some) == TASKS_ENDED_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._tell_some, key, holds)


def _digest(cgroup: str) -> str:
    return hashlib.sha256(cgroup.encode(errors="surrogateescape")).hexdigest()
