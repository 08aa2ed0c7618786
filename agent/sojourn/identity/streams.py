"""One open stream: what its caller has, and hearing when that may have changed."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from sojourn.attestation.attestor import Attested
from sojourn.attestation.peer import Peer
from sojourn.errors import NoIdentity, SojournError, SvidRevoked
from sojourn.identity.entries import Entry
from sojourn.limits import ATTESTOR_RETRY_SECONDS, STREAM_ATTESTED_SECONDS


@dataclass(slots=True, eq=False)
class Stream:
    """One open stream and what its caller has. `entries` is in the stated order, hints unique.

    `unsure`: an attestor could not tell when it was last asked, so it is asked again soon.
    """

    method: str
    peer: Peer
    attested: Attested
    entries: tuple[Entry, ...]
    since: datetime
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    last_push: datetime | None = None
    pushes: int = 0
    ending: SojournError | None = None  # why the stream ends at the next occasion
    unsure: bool = False
    revoked: bool = False  # an SVID that it was sent: it ends when it was sent the next one

    def pushed(self, at: datetime) -> None:
        """Note that the caller was sent something."""
        self.last_push = at
        self.pushes += 1

    async def next_change(self) -> None:
        """Return when something may have changed since the last time this returned, or it is time to attest again.

        Raise what the stream ends with, if it does.
        """
        self.check_closing()
        seconds = ATTESTOR_RETRY_SECONDS if self.unsure else STREAM_ATTESTED_SECONDS
        due = asyncio.get_running_loop().call_later(seconds, self.changed.set)
        try:
            await self.changed.wait()
        finally:
            due.cancel()
        self.changed.clear()
        self.check_closing()

    def end(self, error: SojournError) -> None:
        """Let the stream end with this error."""
        self.ending = error
        self.changed.set()

    def check_revoked(self) -> None:
        """Raise SvidRevoked if an SVID that the caller was sent is revoked: to call once another one was sent."""
        if self.revoked:
            raise SvidRevoked("the SVID was revoked, and replaced: connect again")

    def check_closing(self) -> None:
        if self.ending is not None:
            raise self.ending

    def check_open(self) -> None:
        """Raise NoIdentity when the caller has nothing any more, or what the stream ends with."""
        self.check_closing()
        if not self.entries:
            raise NoIdentity("no identity issued")
