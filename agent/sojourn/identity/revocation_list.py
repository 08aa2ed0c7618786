"""What is revoked: one SVID, or all that an identity was given up to then. The values, and what is kept of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sojourn.audit.journal import Event
from sojourn.authority import svid_stamps
from sojourn.identity.issued_svids import JWT, WIT, X509, IssuedSvid
from sojourn.runtime.clock import Clock

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

    `x509_svids` of them are on the lists that go out, and `left_out` have found no room there. By `ends_by` the last of
    them has ended, also if it was issued while the wall clock stood ahead.
    """

    kind: str  # ENTRY | NAME
    name: str
    order: int
    revoked_at: int
    ran: int = 0
    x509_svids: int = 0
    left_out: int = 0
    ends_by: int = 0

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name

    def covers(self, kind: str, svid_id: str) -> bool:
        """Whether an SVID is one of these, as far as its own ID tells: a serial number tells of its entry alone."""
        if kind not in {X509, JWT, WIT}:
            return False
        stamp = svid_stamps.of_serial(svid_id) if kind == X509 else svid_stamps.of_jti(svid_id)
        said, mark = (
            (stamp.entry, svid_stamps.entry_mark(self.name))
            if self.kind == ENTRY
            else (stamp.name, svid_stamps.name_mark(self.name))
        )
        return said == mark and stamp.order < self.order


Revoked = RevokedSvid | RevokedIdentity


@dataclass(frozen=True, slots=True)
class Times:
    """For how many seconds the agent has run, over all of its starts, and the latest wall time that it has seen."""

    ran: int = 0
    latest: int = 0


class Watch:
    """Goes on with the times of earlier starts."""

    def __init__(self, clock: Clock, before: Times) -> None:
        self._clock = clock
        self._before = before
        self._began = self._boot = clock.boot()
        self._wall = clock.now().timestamp()
        self._latest = max(before.latest, int(self._wall))

    @property
    def ran(self) -> int:
        """So much time has passed at the least, whatever the wall clock says."""
        return self._before.ran + int(self._clock.boot() - self._began)

    def look(self) -> Times:
        """The times as they are now. A wall clock that was set since the last look went on until now."""
        wall, boot = self._clock.now().timestamp(), self._clock.boot()
        went = self._wall + boot - self._boot
        self._wall, self._boot = wall, boot
        self._latest = max(self._latest, int(went), int(wall))
        return Times(self.ran, self._latest)


@dataclass(frozen=True, slots=True)
class StoredRevocations:
    """What a store has. `times`: as they were said last; `svids_from`: what has an older stamp is good no more."""

    svids: Sequence[RevokedSvid] = ()
    identities: Sequence[RevokedIdentity] = ()
    times: Times = Times()
    svids_from: int = svid_stamps.OLDEST


class RevocationStore(Protocol):
    """Where it is kept, each change with its audit records."""

    def load(self) -> StoredRevocations: ...

    async def put(self, revoked: Sequence[Revoked], events: Sequence[Event], times: Times) -> None:
        """Write all of it, in the place of what was there under the same keys, and the times, or nothing."""

    async def drop(self, revoked: Sequence[Revoked], times: Times) -> None:
        """Forget these, and remember the times."""
