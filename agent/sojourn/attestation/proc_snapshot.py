"""What /proc says of a process, looked at once for all its connections that are answered in one round of the loop."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from sojourn.attestation.peer import Peer
from sojourn.attestation.process import ProcessCredentials, Program
from sojourn.limits import LOOK_SHARED_SECONDS


@dataclass(frozen=True, slots=True)
class Look:
    """A process as it was a moment ago."""

    credentials: ProcessCredentials
    program: Program | None
    cgroup: str


class Looks:
    """The looks of one round of the event loop, never kept beyond it, nor for longer than LOOK_SHARED_SECONDS.

    Whoever uses a look asks his own handle afterwards whether the process lives. If it does, nobody else has had its
    pid since the handle was made, so what was read under that pid, through whichever handle, is its own.
    """

    __slots__ = ("_by_pid", "_seconds")

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        """`seconds`: a monotonic clock."""
        self._seconds = seconds
        self._by_pid: dict[int, tuple[Look, float]] = {}  # with when it was, by that clock

    def of(self, peer: Peer) -> Look:
        """Raise AttestationFailed if there is nothing to read."""
        process = peer.process
        now = self._seconds()
        look, at = self._by_pid.get(process.pid, (None, 0.0))
        if look is None or now - at > LOOK_SHARED_SECONDS:
            look = Look(peer.credentials(), process.program(), process.cgroup())
            self._by_pid[process.pid] = look, now
        return look
