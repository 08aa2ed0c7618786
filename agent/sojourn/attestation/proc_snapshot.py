"""What /proc says of a process, looked at once for all its connections that are answered in one step of the loop."""

from dataclasses import dataclass

from sojourn.attestation.peer import Peer
from sojourn.attestation.process import Credentials, Program


@dataclass(frozen=True, slots=True)
class Look:
    """A process as it was a moment ago."""

    credentials: Credentials
    program: Program | None
    cgroup: str


class Looks:
    """The looks of one step of the event loop, never kept beyond it: nothing else of ours runs meanwhile.

    Whoever uses a look asks his own handle afterwards whether the process lives. If it does, nobody else has had its
    pid since the handle was made, so what was read under that pid, through whichever handle, is its own.
    """

    __slots__ = ("_by_pid",)

    def __init__(self) -> None:
        self._by_pid: dict[int, Look] = {}

    def of(self, peer: Peer) -> Look:
        """Raise AttestationFailed if there is nothing to read."""
        process = peer.process
        look = self._by_pid.get(process.pid)
        if look is None:
            look = Look(peer.credentials(), process.program(), process.cgroup())
            self._by_pid[process.pid] = look
        return look
