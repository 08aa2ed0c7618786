"""Fetching signed events from a transmitter (RFC 8936): each takes the same way in as one that is handed in.

What was taken is acknowledged with the next request, and so only once it is on disk; what was refused is told with its
code of RFC 8935; and what could not be taken now is neither, and comes again. An answer is read as a stranger's: no
more of it is looked at than was asked for, and a transmitter that says without end that there is more has a few turns.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final, Protocol

import structlog

from sojourn.errors import InvalidEvent, LimitExceeded, SojournError
from sojourn.jose import strict_json
from sojourn.jose.strict_json import DUPLICATED
from sojourn.limits import (
    SIGNAL_JTI_MAX,
    SIGNAL_JTI_TOLD_MAX,
    SIGNAL_POLL_PAUSE_SECONDS,
    SIGNAL_POLL_TRIES,
    SIGNAL_POLLS_IN_A_ROW,
    SIGNAL_STREAM_LOOK_SECONDS,
    SIGNALS_PER_POLL,
    TOKEN_MAX_BYTES,
)
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import Http, HttpResponse
from sojourn.runtime.clock import Clock
from sojourn.ssf.receiver import ACCEPTED, Issuer, PollState, Signals
from sojourn.ssf.security_events import ACCESS_DENIED, INVALID_ISSUER, UnverifiedEvent, parse_unverified_event
from sojourn.ssf.stream import Authorization, Stream, Streams

log = structlog.get_logger()
STEP: Final = "poll"
BY: Final[Mapping[str, Any]] = {"polled": True}
_UNAUTHORIZED: Final = 401
_STATUSES: Final = {"enabled": "", "paused": "paused", "disabled": "disabled"}
_GONE: Final = frozenset({404, 410})


class Where(Protocol):
    """Where a transmitter is polled."""

    async def url(self) -> str:
        """Raise ProviderUnavailable or ProviderRefused if that cannot be told."""
        ...

    def forget(self) -> None:
        """There is nothing any more."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Where the configuration says."""

    place: str

    async def url(self) -> str:
        return self.place

    def forget(self) -> None:
        pass


class CreatedStream:
    """Where the agent's own stream is, which is created if there is none.

    By one that its transmitter has paused or disabled nothing comes: that is told aloud and shown, and it is polled all
    the same, as is one of which nothing is told.
    """

    def __init__(self, streams: Streams, issuer: Issuer, clock: Clock, *, named: bool) -> None:
        """`named`: whether the configuration says what `aud` events must have; else it is what the stream says."""
        self._streams = streams
        self._issuer = issuer
        self._clock = clock
        self._named = named
        self._look_at = -inf  # on the boot clock
        self.stream: Stream | None = None

    async def url(self) -> str:
        if self.stream is None:
            found = await self._streams.ours()
            if found.audience and not self._named:
                self._issuer.rules = replace(self._issuer.rules, audience=found.audience)
            if self._issuer.polled is not None:
                self._issuer.polled.not_sent = found.lacks
            self.stream = found
            self._look_at = -inf
        if self._clock.boot() >= self._look_at:
            self._look_at = self._clock.boot() + SIGNAL_STREAM_LOOK_SECONDS
            await self._look(self.stream)
        return self.stream.url

    def forget(self) -> None:
        self.stream = None

    async def _look(self, stream: Stream) -> None:
        said, state = await self._streams.status(stream), self._issuer.polled
        if said is None or state is None:
            return
        before, state.stream_status = state.stream_status, _STATUSES.get(said, "other")
        if state.stream_status == before:
            return
        if state.stream_status:
            log.error("signal_stream_not_enabled", stream=stream.id, status=said)
        else:
            log.info("signal_stream_enabled", stream=stream.id)


@dataclass(frozen=True, slots=True)
class Polled:
    """An answer: SETs by what the transmitter says is their `jti`, and whether it has more. What they are nobody has
    looked at.
    """

    sets: Mapping[str, object] = field(repr=False)
    more: bool
    asked: int  # for how many


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An event that could not be taken yet: how often that was tried, and since when, on the boot clock, it is here."""

    text: str = field(repr=False)
    since: float
    tries: int = 0


class Poller:
    """Fetches the events of one issuer."""

    def __init__(
        self,
        issuer: Issuer,
        where: Where,
        every: float,
        signals: Signals,
        http: Http,
        bearer: Authorization,
        clock: Clock,
        counted: Callable[[str], object] = lambda _: None,
    ) -> None:
        """`every`: seconds. `counted` is told what became of each event: ACCEPTED, REPEATED, or a code."""
        self.issuer = issuer
        self._where = where
        self._every = every
        self._signals = signals
        self._http = http
        self._bearer = bearer
        self._clock = clock
        self.counted = counted
        self._acks: list[str] = []  # what the next request tells
        self._errors: dict[str, dict[str, str]] = {}
        self._waiting: dict[str, _Waiting] = {}  # the events of the last answer that could not be taken
        self._no_room: set[str] = set()  # those of them that none but they themselves are the cause of
        self._most = SIGNALS_PER_POLL
        self._failed = 0  # in a row
        self.state = issuer.polled = PollState()

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.turn()
            await asyncio.sleep(self.pause)

    @property
    def pause(self) -> float:
        """Seconds until the next turn."""
        return min(self._every * 2.0 ** min(self._failed, 10), max(self._every, SIGNAL_POLL_PAUSE_SECONDS))

    async def turn(self) -> None:
        """Poll once, and on while something new comes, SIGNAL_POLLS_IN_A_ROW at most. Never raises."""
        for _ in range(SIGNAL_POLLS_IN_A_ROW):
            try:
                answer = await self._ask()
            except SojournError as error:
                self._note_failure(error)
                return
            except Exception:
                log.exception("signal_poll_failed", issuer=self.issuer.rules.issuer)
                self._note_failure(SojournError("internal error; the log has it"))
                return
            self._note_success()
            if not await self._take(answer):
                return

    async def _ask(self) -> Polled:
        """One request, which tells what became of the events of the last answer. Raise SojournError."""
        body: dict[str, Any] = {"maxEvents": self._most, "returnImmediately": True}
        if self._acks:
            body["ack"] = self._acks
        if self._errors:
            body["setErrs"] = self._errors
        self.state.polls += 1
        answer = await self._post(body)
        if answer.status == _UNAUTHORIZED:
            self._bearer.forget()
            answer = await self._post(body)
        if answer.status in _GONE:
            self._where.forget()
        if answer.status != 200:
            raise ProviderUnavailable(f"the transmitter answers {answer.status}", step=STEP)
        polled = _read(answer, body["maxEvents"])
        self._acks, self._errors = [], {}
        return polled

    async def _post(self, body: Mapping[str, Any]) -> HttpResponse:
        headers = {"accept": "application/json", **await self._bearer.header()}
        return await self._http.post_json(await self._where.url(), body, step=STEP, headers=headers)

    async def _take(self, answer: Polled) -> bool:
        """Take the events of an answer. Return whether to ask once more at once: something is new, or there is more."""
        results = []
        before, self._waiting, self._no_room = self._waiting, {}, set()
        for jti, text in list(answer.sets.items())[: answer.asked]:
            results.append(await self._take_one(jti, text, before.get(jti)))
        self._give_up()
        return ACCEPTED in results or (answer.more and bool(self._acks))

    async def _take_one(self, jti: str, text: object, before: _Waiting | None) -> str:
        event = self._here(text, before)
        unverified: UnverifiedEvent | None = None
        try:
            unverified = self._parsed(jti, text)
            result = await self._signals.take(unverified, BY, event.since)
        except SojournError as error:
            return self._not_taken(jti, unverified, error, event)
        except Exception:
            log.exception("signal_not_taken", issuer=self.issuer.rules.issuer)
            self._comes_again(jti, event)
            self._no_room.add(jti)
            return self._told("internal")
        self._acks.append(jti)
        return self._told(result)

    def _here(self, text: object, before: _Waiting | None) -> _Waiting:
        """An event as it is known from before; one with another text under its `jti` has come just now."""
        if before is not None and before.text == text:
            return before
        tries = 0 if before is None else before.tries
        return _Waiting(text if isinstance(text, str) else "", self._clock.boot(), tries)

    def _parsed(self, jti: str, text: object) -> UnverifiedEvent:
        """An event of this issuer under this `jti`, and no other's. Raise InvalidEvent."""
        if not 0 < len(jti) <= SIGNAL_JTI_MAX:
            raise InvalidEvent(f"the jti is not a text of 1 to {SIGNAL_JTI_MAX} characters")
        if not isinstance(text, str):
            raise InvalidEvent("the event is not a text")
        if len(text) > TOKEN_MAX_BYTES:
            raise InvalidEvent(f"the event is longer than {TOKEN_MAX_BYTES} bytes")
        unverified = parse_unverified_event(text)
        if unverified.unverified_issuer != self.issuer.rules.issuer:
            raise InvalidEvent("the event is of another issuer than its transmitter", err=INVALID_ISSUER)
        if unverified.jws.unverified_claims.get("jti") != jti:
            raise InvalidEvent("the event has another jti than the transmitter says")
        return unverified

    def _not_taken(self, jti: str, unverified: UnverifiedEvent | None, error: SojournError, event: _Waiting) -> str:
        """Tell the transmitter of what is not good; what may be by and by comes again."""
        if not event.tries:  # what comes again and again is on record once
            self._signals.refused(unverified, error, self.issuer.rules.issuer, BY)
        if isinstance(error, InvalidEvent):
            if len(jti) <= SIGNAL_JTI_TOLD_MAX:
                self._errors[jti] = {"err": error.err, "description": error.public}
            return self._told(error.err)
        self._comes_again(jti, event)
        if isinstance(error, LimitExceeded):
            self._no_room.add(jti)
        return self._told(error.code)

    def _comes_again(self, jti: str, event: _Waiting) -> None:
        self._waiting[jti] = replace(event, tries=event.tries + 1)

    def _told(self, result: str) -> str:
        self.counted(result)
        return result

    def _give_up(self) -> None:
        """A transmitter gives the oldest first: events that find no room for long must not keep all others away."""
        if len(self._no_room) <= self._most // 2:
            return
        lost = [jti for jti in self._no_room if self._waiting[jti].tries >= SIGNAL_POLL_TRIES]
        for jti in lost:
            self._errors[jti] = {"err": ACCESS_DENIED, "description": "there is no room for it"}
            del self._waiting[jti]
        if lost:
            log.error("signals_given_up", issuer=self.issuer.rules.issuer, events=len(lost))

    def _note_failure(self, error: SojournError) -> None:
        self.state.failures += 1
        self._failed += 1
        self._most = max(1, self._most // 2)  # it may be for the size of the answer
        if isinstance(error, ProviderRefused):
            self._bearer.forget()
        before, self.state.fault = self.state.fault, error.public
        if error.public != before:
            log.warning(
                "signal_poll_failed", issuer=self.issuer.rules.issuer, reason=error.public, detail=error.detail or None
            )

    def _note_success(self) -> None:
        self._failed = 0
        self._most = min(SIGNALS_PER_POLL, self._most * 2)
        self.state.last_at = self._clock.now()
        if self.state.fault:
            self.state.fault = ""
            log.info("signal_poll_recovered", issuer=self.issuer.rules.issuer)


def _read(answer: HttpResponse, asked: int) -> Polled:
    """An answer (RFC 8936, 2.5) to a request for so many events. Raise ProviderUnavailable if it is none, or says a
    thing twice; what does so in the place of an event is no event, and spoils no other.
    """
    try:
        document = strict_json.loads_marked(answer.body.decode())
    except ValueError as error:
        raise ProviderUnavailable("the answer is not JSON", step=STEP) from error
    if document is DUPLICATED:
        raise ProviderUnavailable("the answer has a member twice", step=STEP)
    if not isinstance(document, dict):
        raise ProviderUnavailable("the answer is not a JSON object", step=STEP)
    sets, more = document.get("sets", {}), document.get("moreAvailable", False)
    if sets is DUPLICATED:
        raise ProviderUnavailable("the answer's sets have a jti twice", step=STEP)
    if not isinstance(sets, dict):
        raise ProviderUnavailable("the answer's sets are not an object", step=STEP)
    if not isinstance(more, bool):
        raise ProviderUnavailable("the answer's moreAvailable is neither true nor false", step=STEP)
    return Polled(sets, more, asked)
