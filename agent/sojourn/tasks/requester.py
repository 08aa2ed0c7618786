"""Who asks for a task: a process at the socket, or a client on another machine."""

from dataclasses import dataclass, field
from typing import Protocol

from sojourn.attestation.attestor import Attested
from sojourn.attestation.process import Process
from sojourn.identity.entries import Entry
from sojourn.policy.approval_request import Person
from sojourn.tasks.holders import NoProcess
from sojourn.tasks.origin import NO_UID


class Asker(Protocol):
    """Who asks: a Peer, or a client on another machine, which has NO_UID and NoProcess."""

    @property
    def uid(self) -> int: ...

    @property
    def who(self) -> int:
        """Whose limits count: the uid, or that of the user to whom it is subordinate."""

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

    @property
    def who(self) -> int:
        return self.uid


def person_at(asker: Asker, spiffe_ids: frozenset[str] = frozenset()) -> Person:
    """The person behind whoever asks. `spiffe_ids`: that the process is attested as. Raise AttestationFailed if it has
    gone.
    """
    subuid_of = None if asker.who == asker.uid else asker.who
    return Person(asker.uid, asker.process.login_uid(), asker.process.pid, spiffe_ids, subuid_of)


def owner_of(asker: Asker, entry: Entry) -> int | str:
    """Whose share a task of this asker takes, as `Task.owner`."""
    return asker.uid if asker.uid != NO_UID else str(entry.spiffe_id)
