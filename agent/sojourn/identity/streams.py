"""One open stream: what its caller has, and hearing in its turn when that may have changed."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from time import monotonic

from sojourn.attestation.attestor import Attested
from sojourn.attestation.peer import Peer
from sojourn.attestation.proc_snapshot import Looks
from sojourn.errors import NoIdentity, SojournError, SvidRevoked
from sojourn.identity.entries import Entry
from sojourn.limits import ATTESTOR_RETRY_SECONDS, PUSH_SECONDS, STREAM_ATTESTED_SECONDS, STREAMS_WOKEN_AT_ONCE

_Waiter = asyncio.Future[None]


class StreamStep:
    """One step of the event loop in which streams are woken, and what is found in it for more than one of them. It ends
    with the step: nothing of it is true any longer then.
    """

    __slots__ = ("_answers", "looks")

    def __init__(self) -> None:
        self.looks = Looks()
        self._answers: dict[tuple[object, int], tuple[object, bytes | None]] = {}

    def answer(self, make: Callable[["IdentityStream"], bytes | None], stream: "IdentityStream") -> bytes | None:
        """What `make` makes of the stream's entries: the same for all streams that have the very same ones."""
        entries = stream.entries
        made = self._answers.get((make, id(entries)))
        if made is None:
            made = self._answers[make, id(entries)] = (entries, make(stream))  # and no others have their id meanwhile
        return made[1]


Push = Callable[[StreamStep], bool]
"""Does at once what is to be done for a stream that is woken. Returns False if whoever waits for it has to go on."""


class Waking:
    """Wakes streams, in the order in which it hears of them: for PUSH_SECONDS in a turn of the event loop, and no more
    than STREAMS_WOKEN_AT_ONCE whose waiters then have steps of their own.

    However many streams have something to hear, whoever calls meanwhile is answered in between.
    """

    __slots__ = ("_coming", "_due")

    def __init__(self) -> None:
        self._due: deque[IdentityStream] = deque()
        self._coming = False

    def wake(self, stream: "IdentityStream", loop: asyncio.AbstractEventLoop) -> None:
        self._due.append(stream)
        if not self._coming:
            self._come(loop)

    def _come(self, loop: asyncio.AbstractEventLoop) -> None:
        self._coming = True
        loop.call_soon(self._wake_some, loop)

    def _wake_some(self, loop: asyncio.AbstractEventLoop) -> None:
        step, woken, ends = StreamStep(), 0, monotonic() + PUSH_SECONDS
        while self._due and woken < STREAMS_WOKEN_AT_ONCE and monotonic() < ends:
            woken += self._due.popleft().go_on(step)
        self._coming = False
        if self._due:
            self._come(loop)


@dataclass(slots=True, eq=False)
class IdentityStream:
    """One open stream and what its caller has. `entries` is in the stated order, hints unique.

    `unsure`: an attestor could not tell when it was last asked, so it is asked again soon. `due`: when that is, on the
    monotonic clock, while somebody waits for a change.
    """

    method: str
    peer: Peer
    attested: Attested
    entries: tuple[Entry, ...]
    since: datetime
    turns: Waking = field(default_factory=Waking)
    changed: bool = False  # since the last time `next_change` returned
    last_push: datetime | None = None
    pushes: int = 0
    ending: SojournError | None = None  # why the stream ends at the next occasion
    unsure: bool = False
    revoked: bool = False  # an SVID that it was sent: it ends when it was sent the next one
    due: float = inf
    _waiter: _Waiter | None = None
    _push: Push | None = None

    def pushed(self, at: datetime) -> None:
        """Note that the caller was sent something."""
        self.last_push = at
        self.pushes += 1

    def wake(self) -> None:
        """Something may have changed, or it is time to attest again: whoever waits for that goes on in its turn."""
        if not self.changed:
            self.changed = True
            if self._waiter is not None:
                self.turns.wake(self, self._waiter.get_loop())

    def go_on(self, step: StreamStep) -> bool:
        """It is the stream's turn. Return whether its waiter goes on, because there is no push or it does not do."""
        waiter, push = self._waiter, self._push
        if waiter is None or waiter.done():
            return False
        if push is not None and self.ending is None:
            self.changed = False  # what changes from here on is another change
            try:
                if push(step):
                    self._wait_on()
                    return False
            except Exception as error:  # noqa: BLE001  # the waiter's, whatever it is: it ends the stream
                waiter.set_exception(error)
                return True
        waiter.set_result(None)
        return True

    async def next_change(self, push: Push | None = None) -> None:
        """Return when something may have changed since the last time this returned, or it is time to attest again.

        With `push`, only when that does not do; what it raises is raised here. Raise what the stream ends with, if it
        does.
        """
        self.check_closing()
        if not self.changed:
            self._waiter, self._push = asyncio.get_running_loop().create_future(), push
            self._wait_on()
            try:
                await self._waiter
            finally:
                self._waiter, self._push, self.due = None, None, inf
        self.changed = False
        self.check_closing()

    def _wait_on(self) -> None:
        self.due = monotonic() + (ATTESTOR_RETRY_SECONDS if self.unsure else STREAM_ATTESTED_SECONDS)

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
