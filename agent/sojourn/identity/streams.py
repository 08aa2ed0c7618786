"""One open stream: what its caller has, and hearing in its turn when that may have changed."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from time import monotonic

from sojourn.attestation.attestor import Attested
from sojourn.attestation.peer import Peer
from sojourn.errors import NoIdentity, SojournError, SvidRevoked
from sojourn.identity.entries import Entry
from sojourn.limits import ATTESTOR_RETRY_SECONDS, STREAM_ATTESTED_SECONDS, STREAMS_WOKEN_AT_ONCE

_Waiter = asyncio.Future[None]


class Turns:
    """Wakes those who wait, in the order in which it hears of them, STREAMS_WOKEN_AT_ONCE in a turn of the event loop.

    However many streams have something to hear, whoever calls meanwhile is answered in between.
    """

    __slots__ = ("_coming", "_due")

    def __init__(self) -> None:
        self._due: deque[_Waiter] = deque()
        self._coming = False

    def wake(self, waiter: _Waiter) -> None:
        self._due.append(waiter)
        if not self._coming:
            self._come(waiter.get_loop())

    def _come(self, loop: asyncio.AbstractEventLoop) -> None:
        self._coming = True
        loop.call_soon(self._wake_some, loop)

    def _wake_some(self, loop: asyncio.AbstractEventLoop) -> None:
        self._coming = False
        for _ in range(min(STREAMS_WOKEN_AT_ONCE, len(self._due))):
            waiter = self._due.popleft()
            if not waiter.done():
                waiter.set_result(None)
        if self._due:
            self._come(loop)


@dataclass(slots=True, eq=False)
class Stream:
    """One open stream and what its caller has. `entries` is in the stated order, hints unique.

    `unsure`: an attestor could not tell when it was last asked, so it is asked again soon. `due`: when that is, on the
    monotonic clock, while somebody waits for a change.
    """

    method: str
    peer: Peer
    attested: Attested
    entries: tuple[Entry, ...]
    since: datetime
    turns: Turns = field(default_factory=Turns)
    changed: bool = False  # since the last time `next_change` returned
    last_push: datetime | None = None
    pushes: int = 0
    ending: SojournError | None = None  # why the stream ends at the next occasion
    unsure: bool = False
    revoked: bool = False  # an SVID that it was sent: it ends when it was sent the next one
    due: float = inf
    _waiter: _Waiter | None = None

    def pushed(self, at: datetime) -> None:
        """Note that the caller was sent something."""
        self.last_push = at
        self.pushes += 1

    def wake(self) -> None:
        """Something may have changed, or it is time to attest again: whoever waits for that goes on in its turn."""
        if not self.changed:
            self.changed = True
            if self._waiter is not None:
                self.turns.wake(self._waiter)

    async def next_change(self) -> None:
        """Return when something may have changed since the last time this returned, or it is time to attest again.

        Raise what the stream ends with, if it does.
        """
        self.check_closing()
        if not self.changed:
            self._waiter = asyncio.get_running_loop().create_future()
            self.due = monotonic() + (ATTESTOR_RETRY_SECONDS if self.unsure else STREAM_ATTESTED_SECONDS)
            try:
                await self._waiter
            finally:
                self._waiter, self.due = None, inf
        self.changed = False
        self.check_closing()

    def end(self, error: SojournError) -> None:
        """Let the stream end with this error."""
        self.ending = error
        self.wake()

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
