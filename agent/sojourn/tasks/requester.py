"""Who asks for a task: a process at the socket, or a client on another machine."""

from dataclasses import dataclass, field
from typing import Protocol

from sojourn.attestation.attestor import Attested
from sojourn.attestation.process import Process
from sojourn.identity.entries import Entry
from sojourn.tasks.holders import NoProcess
from sojourn.tasks.origin import NO_UID


class Asker(Protocol):
    """Who asks: a Peer, or a client on another machine, which has NO_UID and NoProcess."""

    @property
    def uid(self) -> int: ...

    @property
    def process(self) -> Process: ...

    @property
    def attested(self) -> Attested | None: ...


@dataclass(frozen=True, slots=True)
class Remote:
    """A client on another machine."""

    uid: int = NO_UID
    process: Process = field(default_factory=NoProcess)
    attested: Attested | None = None


def owner_of(asker: Asker, entry: Entry) -> int | str:
    """Whose share a task of this asker takes, as `Task.owner`."""
    return asker.uid if asker.uid != NO_UID else str(entry.spiffe_id)
