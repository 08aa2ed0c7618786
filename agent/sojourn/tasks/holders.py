"""The processes that tasks live with: one handle for each process, however many tasks it holds."""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from sojourn.attestation.descent import ProcessKey
from sojourn.attestation.proc_reader import HeldUp
from sojourn.attestation.proc_snapshot import Looks
from sojourn.attestation.process import Process, Program
from sojourn.errors import AttestationFailed, LimitExceeded
from sojourn.quota.usage import Usage
from sojourn.runtime.each_round import EachRound
from sojourn.runtime.hooks import Hooks
from sojourn.tasktoken.end_reasons import ATTESTATION_CHANGED, HOLDER_EXITED


class NoProcess(Process):
    """Stands where a process would: the holder of a task whose client is on another machine. It never exits."""

    __slots__ = ()

    def __init__(self) -> None:
        self.pid = self.birth = self._start_time = 0
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


@dataclass(slots=True, eq=False)
class Hold:
    """A process that holds tasks, which share this. It is let go of once it was released as often as it was given."""

    process: Process
    user: int  # as whose it counts
    program: Program | None  # what the process ran when it was first held
    cgroup: str  # where it was then
    cgroup_digest: str
    let_go: "Callable[[Hold], object]"
    given: int = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def key(self) -> ProcessKey:
        """Which process it is."""
        return self.process.key

    def release(self) -> None:
        """Let go of the process, as far as one task is concerned."""
        self.given -= 1
        if not self.given:
            self.let_go(self)

    def lost(self) -> str:
        """Why the process holds nothing any more: it has gone, or changed its program or cgroup since it was held."""
        return self.lost_by(Looks())

    def lost_by(self, looks: Looks) -> str:
        """As `lost`, by what was found a moment ago; but that it has gone is looked at each time. Raise HeldUp if that
        cannot be told for now.
        """
        why = self._changed(looks)
        return HOLDER_EXITED if self.process.exited else why

    def _changed(self, looks: Looks) -> str:
        try:
            same = looks.place_of(self.process) == (self.program, self.cgroup)
            doomed = self.process.doomed(anew=not same)
        except AttestationFailed as error:  # it may be ending: its program goes before the kernel says so
            if isinstance(error, HeldUp) and not self.process.exited:
                raise
            return HOLDER_EXITED
        if doomed:
            return HOLDER_EXITED
        return "" if same else ATTESTATION_CHANGED


class Holders:
    """All processes that hold tasks: at most `maximum`, since each takes a descriptor, and half of those for a user."""

    def __init__(
        self, maximum: int, owner: Callable[[int], int] = lambda uid: uid, looks: EachRound[Looks] | None = None
    ) -> None:
        """`owner`: the user who may become a uid. `looks`: those by which callers are attested, who are holders often;
        None: its own.
        """
        self._maximum = maximum
        self.owner = owner
        self._per_user = Usage[int]()
        self._held: dict[ProcessKey, Hold] = {}
        # A request looks more than once, and those of one process that are answered in one round share what is found.
        self._looks = looks or EachRound(Looks)
        # The holder of all tasks whose clients are on other machines.
        self._nobody = Hold(NoProcess(), 0, None, "", _digest(""), lambda _: None)
        self.on_exit: Hooks[[Hold]] = Hooks()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, process: Process, uid: int) -> Hold:
        """Hold a process of `uid`, which this takes ownership of.

        Raise LimitExceeded if too many processes are held, AttestationFailed if it has gone already.
        """
        if isinstance(process, NoProcess):
            self._nobody.given += 1
            return self._nobody
        key = process.key
        user = self.owner(uid)
        held = self._held.get(key)
        try:
            if held is None and (len(self._held) >= self._maximum or self._per_user[user] * 2 >= self._maximum):
                raise LimitExceeded("too many processes hold tasks")
            # One that is held already is judged by what it was when it was first held.
            program, cgroup = (process.program(), process.cgroup()) if held is None else (held.program, held.cgroup)
            if held is None:
                _ = process.start_time  # what is kept of a task has it: it is read while there is something to read
            process.check_alive()
        except BaseException:
            process.close()
            raise
        if held is None:
            held = self._held[key] = Hold(process, user, program, cgroup, _digest(cgroup), self._let_go)
            self._per_user.add(user)
            process.on_exit(lambda: self._exited(key))
        else:
            process.close()
        held.given += 1
        return held

    def lost(self, hold: Hold) -> str:
        """HOLDER_EXITED, ATTESTATION_CHANGED if its program or cgroup did since it was first held, or ''. Raise HeldUp
        if that cannot be told for now.
        """
        if isinstance(hold.process, NoProcess):
            return ""
        return hold.lost_by(self._looks.get()) if self._held.get(hold.key) is hold else HOLDER_EXITED

    @property
    def keys(self) -> list[ProcessKey]:
        """The processes that are held."""
        return list(self._held)

    def lost_of(self, keys: Iterable[ProcessKey]) -> dict[ProcessKey, str]:
        """Why those of these processes that are lost hold nothing any more; of what cannot be told for now, nothing."""
        lost = {}
        for key in keys:
            with suppress(HeldUp):
                if key in self._held and (why := self._held[key].lost()):
                    lost[key] = why
        return lost

    def _let_go(self, hold: Hold) -> None:
        del self._held[hold.key]
        self._per_user.remove(hold.user)
        hold.process.close()

    def _exited(self, key: ProcessKey) -> None:
        if key in self._held:
            self.on_exit.tell(self._held[key])


def _digest(cgroup: str) -> str:
    return hashlib.sha256(cgroup.encode(errors="surrogateescape")).hexdigest()
