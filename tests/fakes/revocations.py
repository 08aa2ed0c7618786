"""The store of revoked SVIDs and identities, in memory."""

from collections.abc import Sequence

from sojourn.audit.journal import Event
from sojourn.errors import SojournError
from sojourn.identity.revocation_list import Revoked, RevokedIdentity, RevokedSvid, StoredRevocations, Times


class FakeRevocationStore:
    """Keeps what is revoked in a dictionary. `failure` is raised in the place of a write."""

    def __init__(self, revoked: Sequence[Revoked] = ()) -> None:
        self.rows = {each.key: each for each in revoked}
        self.events: list[Event] = []
        self.times = Times()
        self.svids_from = StoredRevocations().svids_from
        self.failure: SojournError | None = None

    @property
    def svids(self) -> list[RevokedSvid]:
        return [each for each in self.rows.values() if isinstance(each, RevokedSvid)]

    @property
    def identities(self) -> list[RevokedIdentity]:
        return [each for each in self.rows.values() if isinstance(each, RevokedIdentity)]

    def load(self) -> StoredRevocations:
        return StoredRevocations(self.svids, self.identities, self.times, self.svids_from)

    async def put(self, revoked: Sequence[Revoked], events: Sequence[Event], times: Times) -> None:
        if self.failure is not None:
            raise self.failure
        self.rows.update({each.key: each for each in revoked})
        self.events += events
        self.times = times

    async def drop(self, revoked: Sequence[Revoked], times: Times) -> None:
        if self.failure is not None:
            raise self.failure
        for each in revoked:
            self.rows.pop(each.key, None)
        self.times = times
