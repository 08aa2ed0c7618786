"""The store of revoked SVIDs, in memory."""

from collections.abc import Sequence

from sojourn.errors import SojournError
from sojourn.identity.revocations import RevokedSvid


class FakeRevocationStore:
    """Keeps revoked SVIDs in a list. `failure` is raised in the place of a write."""

    def __init__(self, revoked: Sequence[RevokedSvid] = ()) -> None:
        self.revoked = list(revoked)
        self.failure: SojournError | None = None

    def load(self) -> list[RevokedSvid]:
        return list(self.revoked)

    async def put(self, revoked: Sequence[RevokedSvid]) -> None:
        if self.failure is not None:
            raise self.failure
        self.revoked += revoked

    async def drop_ended(self, now: int) -> None:
        self.revoked = [each for each in self.revoked if each.svid.expires_at > now]
