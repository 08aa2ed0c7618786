"""What is revoked: one SVID, or all that an identity was given up to then. The values, and what is kept of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sojourn.authority import stamps
from sojourn.identity.issued import JWT, WIT, X509, IssuedSvid
from sojourn.oversight.audit import Event

ENTRY, NAME = "entry_id", "spiffe_id"  # by what an identity is revoked


@dataclass(frozen=True, slots=True)
class RevokedSvid:
    """One SVID, since `revoked_at` (seconds since the epoch), when the agent had run for `ran` seconds.

    `whole`: it was revoked with all of its identity, and is here for the lists that go out.
    """

    svid: IssuedSvid
    revoked_at: int
    ran: int = 0
    whole: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.svid.kind, self.svid.id


@dataclass(frozen=True, slots=True)
class RevokedIdentity:
    """All SVIDs of an entry, or with a SPIFFE ID, whose stamps are older than `order`.

    `x509_svids` of them are on the lists that go out, and `left_out` have found no room there.
    """

    kind: str  # ENTRY | NAME
    name: str
    order: int
    revoked_at: int
    ran: int = 0
    x509_svids: int = 0
    left_out: int = 0

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name

    def covers(self, kind: str, svid_id: str) -> bool:
        """Whether an SVID is one of these, as far as its own ID tells: a serial number tells of its entry alone."""
        if kind not in {X509, JWT, WIT}:
            return False
        stamp = stamps.of_serial(svid_id) if kind == X509 else stamps.of_jti(svid_id)
        said, mark = (
            (stamp.entry, stamps.entry_mark(self.name))
            if self.kind == ENTRY
            else (stamp.name, stamps.name_mark(self.name))
        )
        return said == mark and stamp.order < self.order


Revoked = RevokedSvid | RevokedIdentity


@dataclass(frozen=True, slots=True)
class Kept:
    """What a store has. `ran`: for how many seconds the agent has run, over all of its starts, as far as was said."""

    svids: Sequence[RevokedSvid] = ()
    identities: Sequence[RevokedIdentity] = ()
    ran: int = 0


class RevocationStore(Protocol):
    """Where it is kept, each change with its audit records."""

    def load(self) -> Kept: ...

    async def put(self, revoked: Sequence[Revoked], events: Sequence[Event]) -> None:
        """Write all of it, in the place of what was there under the same keys, or nothing."""

    async def drop(self, revoked: Sequence[Revoked], ran: int) -> None:
        """Forget these, and remember for how long the agent has run."""
