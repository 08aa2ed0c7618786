"""Sessions of people that have ended at their issuer: no token of one is taken again, over restarts too.

What has ended is kept by a keyed digest, never by name, until no token of it can be good: the longest that a token of
the issuer may live, and a margin. It has ended as soon as it is noted, and is written then, again and again until it
is on disk. What was forgotten leaves the span of times in which its tokens may have ended, so that a clock that is set
back makes none of them good.
"""

import asyncio
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import nsmallest
from math import inf
from typing import Final, Protocol

import structlog

from sojourn.audit.journal import Event
from sojourn.errors import SojournError
from sojourn.errors.oauth import NotOnDisk
from sojourn.errors.people import PersonRefused
from sojourn.limits import (
    ENDED_SESSIONS,
    ENDED_SESSIONS_DROPPED_SHARE,
    ENDED_SESSIONS_EVENTS,
    ENDED_SESSIONS_KEPT_SECONDS,
    ENDED_SESSIONS_LOOK_SECONDS,
    PEOPLE_NAMED_KEPT,
)
from sojourn.people.person import Person
from sojourn.runtime.background import Background
from sojourn.runtime.clock import Alarm, Alarms, Clock
from sojourn.runtime.forgotten_times import Forgotten

log = structlog.get_logger()
RETRY_SECONDS = 1.0
# What is kept: a session; all that a person was given until then; the same, where a token names no session.
SESSION: Final = "session"
PERSON: Final = "person"
UNNAMED: Final = "unnamed"


@dataclass(frozen=True, slots=True)
class Ended:
    """What ended `at` a time, by a digest. No token of it ends after `until`. Both are seconds since the epoch."""

    digest: str
    at: int
    until: int


@dataclass(frozen=True, slots=True)
class KeptEnds:
    """What the store has. Of tokens that were issued until `after`, nobody knows what had ended."""

    ended: Sequence[Ended] = ()
    forgotten: Forgotten = field(default_factory=Forgotten)
    after: int = -1


class EndedStore(Protocol):
    """Where ends are kept."""

    def load(self) -> KeptEnds:
        """Read in the calling thread: for the start."""
        ...

    async def put(
        self, ended: Sequence[Ended], dropped: Sequence[str], forgotten: Forgotten, events: Sequence[Event]
    ) -> None:
        """Keep these, each in the place of another with its digest; forget others; and write what the audit has of it,
        all in one. Raise what the store does.
        """
        ...


class EndedSessions:
    """What has ended. Each `check` is a look into a dictionary."""

    def __init__(self, key: bytes, store: EndedStore, clock: Clock, alarms: Alarms, room: int = ENDED_SESSIONS) -> None:
        """`key`: of the digests, which is not in the store."""
        self._key = key
        self._digest = lru_cache(2 * PEOPLE_NAMED_KEPT)(self._digest_anew)  # of a session, and of whose it is
        self._store = store
        self._clock = clock
        self._alarms = alarms
        self._room = room
        kept = store.load()
        self._ended = {each.digest: each for each in kept.ended}
        self._forgotten, self._after = kept.forgotten, kept.after
        self._looked = -inf
        self._unwritten: dict[str, Ended] = {}
        self._dropped: set[str] = set()  # what is to be deleted
        self._events: list[Event] = []  # that go with those; the newest
        self._left_out = 0  # events for which there was no room
        self._writing = asyncio.Lock()
        self._again: Alarm | None = None
        self._background = Background("ended_sessions_not_written")

    def __len__(self) -> int:
        return len(self._ended)

    def check(self, person: Person) -> None:
        """Raise PersonRefused if the session that a token is of has ended, or may have."""
        if person.session and self._digest(SESSION, person.url, person.session) in self._ended:
            raise PersonRefused("session_ended", "the person's session has ended: have them log in again")
        kinds = (PERSON,) if person.session else (PERSON, UNNAMED)
        found = [self._ended.get(self._digest(kind, person.url, person.subject)) for kind in kinds]
        if any(each is not None and person.issued_at <= each.at for each in found):
            raise PersonRefused("session_ended", "the person has logged out since then: have them log in again")
        if person.issued_at <= self._after:
            raise PersonRefused("session_ended", "the token is of before a backup was put back: get a newer one")
        if self._forgotten.has(person.expires_at):
            raise PersonRefused("session_ended", "the token may be of a session that has ended: get a newer one")

    def end(self, url: str, *, session: str, subject: str, at: int, longest: float) -> None:
        """From now on a session has ended, or without one all that the person was given until `at`.

        With both, what the person was given without naming a session is over too: it may be of this one. `longest`:
        seconds for which a token of the issuer is good. It is not on disk yet: `settle` writes it.
        """
        named = [(SESSION, session)] if session else []
        named += [(UNNAMED if session else PERSON, subject)] if subject else []
        for kind, name in named:
            self._put(Ended(self._digest(kind, url, name), at, at + int(longest)))
        self._forget_old()

    async def settle(self, events: Sequence[Event]) -> None:
        """Return when all that has ended is on disk, with these records of the audit. Raise NotOnDisk: it has ended,
        and is written as soon as that can be.
        """
        self._take(events)
        try:
            await asyncio.shield(self._background.run(self._write()))
        except SojournError as error:
            raise NotOnDisk(
                f"it has ended, and that is not on disk yet: {error.public}; it is tried again until the agent stops",
                detail=error.detail,
            ) from error

    async def close(self) -> None:
        """The agent stops: write what is not on disk, if that can be."""
        await self._quietly()
        await self._background.quiet()
        self._tell_left_out()

    def _digest_anew(self, kind: str, url: str, name: str) -> str:
        return hmac.digest(self._key, json.dumps([kind, url, name]).encode(), "sha256").hex()

    def _put(self, ended: Ended) -> None:
        before = self._ended.get(ended.digest)
        if before is not None:
            ended = Ended(ended.digest, max(ended.at, before.at), max(ended.until, before.until))
        self._dropped.discard(ended.digest)
        self._ended[ended.digest] = self._unwritten[ended.digest] = ended

    def _forget_old(self) -> None:
        """Forget what can be of no account any more; where there is no room, those that soon cannot."""
        if self._clock.boot() >= self._looked + ENDED_SESSIONS_LOOK_SECONDS:
            self._looked = self._clock.boot()
            over = self._clock.now().timestamp() - ENDED_SESSIONS_KEPT_SECONDS
            self._forget([each for each in self._ended.values() if each.until <= over])
        if len(self._ended) > self._room:
            many = len(self._ended) - self._room + int(self._room * ENDED_SESSIONS_DROPPED_SHARE)
            log.warning("ended_sessions_full", reason="there is no room for more sessions that have ended", room=many)
            self._forget(nsmallest(many, self._ended.values(), key=lambda each: each.until))

    def _forget(self, those: Sequence[Ended]) -> None:
        """Its tokens were issued until it ended, and lived no longer than from then to `until`."""
        self._forgotten = self._forgotten.and_of((2 * each.at - each.until, each.until) for each in those)
        for each in those:
            del self._ended[each.digest]
            self._unwritten.pop(each.digest, None)
            self._dropped.add(each.digest)

    async def _write(self) -> None:
        async with self._writing:
            ended, dropped, events = dict(self._unwritten), set(self._dropped), self._events
            if not ended and not dropped and not events:
                return
            self._events = []
            try:
                await self._store.put(list(ended.values()), sorted(dropped), self._forgotten, events)
            except BaseException:
                since, self._events = self._events, events
                self._take(since)
                self._try_again()
                raise
            self._tell_left_out()
            self._dropped -= dropped
            for digest, each in ended.items():
                if self._unwritten.get(digest) is each:
                    del self._unwritten[digest]

    def _take(self, events: Sequence[Event]) -> None:
        """Have records of the audit written with what has ended: the newest. While the disk fails the same ends come
        again and again; an end itself has its place whatever becomes of its record.
        """
        self._events += events
        over = max(0, len(self._events) - ENDED_SESSIONS_EVENTS)
        del self._events[:over]
        self._left_out += over

    def _tell_left_out(self) -> None:
        if self._left_out:
            reason = "while the disk failed there was no room for the audit's older records of ends"
            log.warning("ended_sessions_events_left_out", reason=reason, records=self._left_out)
            self._left_out = 0

    def _try_again(self) -> None:
        """Write behind it what is not on disk, however often that must be tried."""
        if self._again is None:
            self._again = self._alarms.after(RETRY_SECONDS, self._write_behind)

    def _write_behind(self) -> None:
        self._again = None
        self._background.run(self._quietly())

    async def _quietly(self) -> None:
        try:
            await self._write()
        except SojournError as error:
            log.error("ended_sessions_not_written", reason=error.public, detail=error.detail)
