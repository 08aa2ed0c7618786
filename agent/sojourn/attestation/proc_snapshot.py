"""What /proc says of a process, looked at once for all that is done for it in one round of the loop."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from sojourn.attestation.peer import Peer
from sojourn.attestation.process import Ids, Process, Program
from sojourn.limits import LOOK_SHARED_SECONDS
from sojourn.runtime.each_round import Found


@dataclass(frozen=True, slots=True)
class Look:
    """A process as it was a moment ago."""

    ids: Ids
    program: Program | None
    cgroup: str


class Looks:
    """The looks of one round of the event loop, never kept beyond it, nor for longer than LOOK_SHARED_SECONDS.

    Whoever uses a look asks his own handle afterwards whether the process lives. If it does, nobody else has had its
    pid since the handle was made, so what was read under that pid, through whichever handle, is its own.
    """

    __slots__ = ("_by_pid", "_places")

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        """`seconds`: a monotonic clock."""
        self._by_pid = Found[int, Look](LOOK_SHARED_SECONDS, seconds)
        self._places = Found[int, tuple[Program | None, str]](LOOK_SHARED_SECONDS, seconds)

    def of(self, peer: Peer) -> Look:
        """Raise AttestationFailed if there is nothing to read."""
        process = peer.process
        return self._by_pid.of(process.pid, lambda: Look(process.ids(), process.program(), process.cgroup()))

    def place_of(self, process: Process) -> tuple[Program | None, str]:
        """What a process runs, and its cgroup. Raise AttestationFailed if there is nothing to read."""
        look = self._by_pid.known(process.pid)
        if look is not None:
            return look.program, look.cgroup
        return self._places.of(process.pid, lambda: (process.program(), process.cgroup()))
