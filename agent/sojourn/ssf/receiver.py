"""Signed events of outside issuers (Shared Signals, CAEP, RISC): each that is good takes effect once.

About workloads and tasks they tell facts, which are published; about people, that they have logged out or may not log
in any more, and then what is done for them ends. What takes away from people is done also where an event cannot be
remembered: done twice it takes away no more.

An event is remembered by issuer and `jti` as long as it could be handed in again. It is claimed on disk before
anything is published and marked as done afterwards, together with its audit record: what was claimed and did not get
that far, by a failure or because the agent was killed, may be delivered again. A fact that is published twice then
has the time of its event, so that the second has no effect.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, Self
from weakref import WeakValueDictionary

import structlog

from sojourn.audit.journal import Audit, Event
from sojourn.errors import InvalidEvent, LimitExceeded, SojournError, Unavailable
from sojourn.facts.facts import Facts
from sojourn.facts.publications import Publication
from sojourn.limits import AUDITED_TEXT, JWT_LEEWAY_SECONDS, SIGNALS_REMEMBERED
from sojourn.runtime.clock import Clock, milliseconds
from sojourn.settings.signals import SignalsConfig
from sojourn.spiffe.ids import TrustDomain
from sojourn.ssf import caep, security_events
from sojourn.ssf.caep import Finding, PersonAct, PersonFinding, Told, Value
from sojourn.ssf.issuer_keys import EventKeys
from sojourn.ssf.security_events import Rules, SecurityEvent, UnverifiedEvent
from sojourn.ssf.subjects import PeopleIssuer, Subjects, Whose
from sojourn.tasktoken.task_id import is_task_id

log = structlog.get_logger()
ACCEPTED, REPEATED = "accepted", "repeated"
# What the store finds of an event: nothing; an earlier delivery that is done; another event with the same jti; nothing,
# but it is no younger than some that were forgotten; nothing, and there is no room.
Found = Literal["fresh", "repeated", "other", "forgotten", "full"]


class KeysUnavailable(Unavailable):
    """The keys of an event's issuer cannot be had now."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What is remembered of an event."""

    id: str
    issuer: str
    issued_ms: int
    digest: str


class SignalStore(Protocol):
    """Where events that were taken are remembered."""

    async def claim(self, event: Claimed, forget_before_ms: int) -> Found:
        """Remember an event as begun, if it is fresh. Those of its issuer from before a time are forgotten first."""

    async def done(self, event: Claimed, record: Event) -> None:
        """Remember an event as done, together with its record."""


class PeopleEnds(Protocol):
    """What ends sessions of people, and blocks them."""

    def check(self, people: PeopleIssuer, acts: Sequence[PersonAct], tasks: Sequence[tuple[str, Whose]]) -> None:
        """Raise InvalidEvent if something is to be done to nobody that there can be, or a task is named as that of
        somebody whom it is not for.
        """

    def pseudonym_of(self, people: PeopleIssuer, subject: str) -> str:
        """What facts and records call somebody."""

    async def apply(self, people: PeopleIssuer, act: PersonAct, source: str, by: Mapping[str, Any]) -> None:
        """Do one of these things because `source` says so. It is on disk when this returns."""


@dataclass(slots=True)
class PollState:
    """How fetching an issuer's events goes: `last_at` is when a poll went well last, `fault` what the last one met."""

    polls: int = 0
    failures: int = 0
    last_at: datetime | None = None
    fault: str = ""
    stream_status: str = ""  # paused, disabled or other; "": its stream is enabled, or nothing is known of that
    not_sent: tuple[str, ...] = ()  # types of events that were asked for, and that its stream does not have


@dataclass(slots=True)
class Issuer:
    """One issuer that is heard: its rules and keys, and what came from it since the agent started.

    `publishers` are the SPIFFE IDs that may hand its events in; if empty, every process on the machine may. `people`:
    of whose people it may speak.
    """

    rules: Rules
    keys: EventKeys
    valid_seconds: float | None = None
    publishers: frozenset[str] = frozenset()
    people: PeopleIssuer | None = None
    accepted: int = 0
    repeated: int = 0
    refused: int = 0  # that said they were its
    not_ours: int = 0  # of those accepted, that were about nobody of ours
    last_at: datetime | None = None
    polled: PollState | None = None  # None: its events are handed in

    @classmethod
    def of(cls, config: SignalsConfig, audience: str, people: Mapping[str, str], keys: EventKeys) -> Self:
        """As the configuration has it; `audience` is for one that names none.

        `people`: the `iss` of the people's issuers, by their names.
        """
        rules = Rules(config.issuer, config.audience or audience, config.oldest)
        valid = None if config.valid is None else config.valid.total_seconds()
        whose = None
        if config.people is not None:
            url = people[config.people]
            whose = PeopleIssuer(config.people, url, url == config.issuer)
        return cls(rules, keys, valid, frozenset(config.publishers), whose)


class Signals:
    """Takes events in."""

    def __init__(
        self,
        issuers: Collection[Issuer],
        facts: Facts,
        is_live: Callable[[str], bool],
        is_believed: Callable[[str, str, Value], bool],
        store: SignalStore,
        audit: Audit,
        clock: Clock,
        trust_domain: TrustDomain,
        people: PeopleEnds,
    ) -> None:
        """`is_live` says whether a task lives: of one that does not, nothing is of any account. `is_believed` says
        whether a task type takes a fact by its name from a source, with such a value.
        """
        self.issuers: Mapping[str, Issuer] = {each.rules.issuer: each for each in issuers}
        self._facts = facts
        self._is_live = is_live
        self._is_believed = is_believed
        self._store = store
        self._audit = audit
        self._clock = clock
        self._trust_domain = trust_domain
        self._people = people
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self) -> None:
        """Look at all keys, so that a file that cannot be used is told before the first event comes."""
        for issuer in self.issuers.values():
            await issuer.keys.begin()

    def issuer_of(self, unverified: UnverifiedEvent) -> Issuer:
        """The issuer that a token says it is of. Raise InvalidEvent if it is none that is heard."""
        issuer = self.issuers.get(unverified.unverified_issuer)
        if issuer is None:
            raise InvalidEvent("the token's issuer is none that this agent hears", err=security_events.INVALID_ISSUER)
        return issuer

    async def take(self, unverified: UnverifiedEvent, by: Mapping[str, Any], since: float | None = None) -> str:
        """Verify an event and publish what it says. Return ACCEPTED, or REPEATED if that was done before.

        `by` says who handed it in, `since` when it was here first, on the boot clock; None: now. Raise InvalidEvent if
        it is not good, and other errors of ours if it may be by and by: then it can be delivered again. KeysUnavailable
        is of an event that is good but for its key, of which nobody can tell now whether it is the issuer's.
        """
        issuer = self.issuer_of(unverified)
        security_events.check_unverified(unverified, issuer.rules, self._clock.now())
        try:
            keys = await issuer.keys.named(unverified.jws.kid or "", since)
        except Unavailable as error:
            raise KeysUnavailable(error.public, detail=error.detail) from error
        event = security_events.verify(unverified, issuer.rules, keys, self._clock.now())
        told = caep.told_by(event, Subjects(self._trust_domain, issuer.people), self._clock.now())
        if issuer.people is not None:
            self._people.check(issuer.people, told.acts, told.tasks)
        turn = self._turns.setdefault(event.id, asyncio.Lock())
        async with turn:
            if not await self._begin(event, issuer, told, by):
                issuer.repeated += 1
                return REPEATED
            found = [each for each in told.findings if not is_task_id(each.subject) or self._is_live(each.subject)]
            theirs = self._of_people(issuer, told.of_people)
            found += theirs.values()
            await self._act(event, issuer, told.acts, by)
            changed = [each.name for each in found if await self._publish(each, issuer, event, by)]
            others = [*told.others, *(_not_kept(each) for each in told.of_people if each not in theirs)]
            said = {**_said(event, found, told.acts, others), "changed": changed, **by}
            await self._store.done(_claimed(event), self._audit.event("signal_accepted", said))
        issuer.accepted += 1
        issuer.not_ours += bool(others)
        issuer.last_at = self._clock.now()
        log.info(
            "signal_accepted",
            issuer=event.issuer,
            types=_types(event),
            changed=changed,
            people=said["people"],
            not_ours=said["not_ours"],
            **by,
        )
        return ACCEPTED

    def refused(
        self, unverified: UnverifiedEvent | None, error: SojournError, who: int | str, by: Mapping[str, Any]
    ) -> None:
        """Record that an event was not taken from `by`, which counts as `who`."""
        issuer = self.issuers.get(unverified.unverified_issuer) if unverified is not None else None
        if issuer is not None:
            issuer.refused += 1
        self._audit.denied(
            "signal_refused",
            who,
            **by,
            issuer=issuer.rules.issuer if issuer is not None else None,
            code=error.err if isinstance(error, InvalidEvent) else error.code,
            reason=error.public,
        )

    async def _begin(self, event: SecurityEvent, issuer: Issuer, told: Told, by: Mapping[str, Any]) -> bool:
        """Remember an event; False: it was taken before. If that cannot be, now or for good, nothing of it is taken,
        but what takes away from people: an end waits for no room, and may have been lost by a restore.
        """
        takes_away = [act for act in told.acts if act.deed != "unblock"]
        try:
            found = await self._claim(_claimed(event), issuer.rules)
        except SojournError:
            with suppress(SojournError):  # the first failure is told
                await self._act(event, issuer, takes_away, by)
            raise
        if found == "other":
            raise InvalidEvent("the token's jti was used for another event")
        if found == "forgotten":
            await self._act(event, issuer, takes_away, by)  # what fails of it is told: then the event comes again
            raise InvalidEvent("the token is of a time of which others are forgotten, so it may have been used")
        if found == "full":
            with suppress(SojournError):
                await self._act(event, issuer, takes_away, by)
            raise LimitExceeded(f"{SIGNALS_REMEMBERED} events of the issuer are remembered: come again later")
        return found == "fresh"

    async def _claim(self, event: Claimed, rules: Rules) -> Found:
        # The clock may be set back a little without an event being both forgotten and young enough.
        kept_seconds = rules.max_age_seconds + JWT_LEEWAY_SECONDS
        return await self._store.claim(event, int((self._clock.now().timestamp() - kept_seconds) * 1000))

    async def _act(
        self, event: SecurityEvent, issuer: Issuer, acts: Sequence[PersonAct], by: Mapping[str, Any]
    ) -> None:
        """Do all of it, whatever fails of it, and raise what failed first."""
        failed: SojournError | None = None
        for act in acts:
            assert issuer.people is not None  # whoever speaks of no people has told no acts
            try:
                await self._people.apply(issuer.people, act, event.issuer, {**by, "signal": event.id})
            except SojournError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _of_people(self, issuer: Issuer, told: Sequence[PersonFinding]) -> dict[PersonFinding, Finding]:
        """The facts about people that are to be kept, by their pseudonyms. A session alone does not say whose it is.

        What no task type takes from this issuer is none, so that what is said of everybody takes no room of what some
        type reads; where the issuer has said it of a person before, the newer counts.
        """
        found = {}
        for each in told:
            if issuer.people is not None and each.whose.subject:
                person = self._people.pseudonym_of(issuer.people, each.whose.subject)
                source = issuer.rules.issuer
                known = self._facts.find((each.name, person, source)) is not None
                if known or self._is_believed(each.name, source, each.value):
                    found[each] = Finding(each.name, person, each.value, each.happened_at)
        return found

    async def _publish(self, found: Finding, issuer: Issuer, event: SecurityEvent, by: Mapping[str, Any]) -> bool:
        publication = Publication(
            found.name, found.subject, found.value, event.issuer, issuer.valid_seconds, found.happened_at
        )
        return await self._facts.publish(publication, {**by, "signal": event.id})


def _claimed(event: SecurityEvent) -> Claimed:
    return Claimed(event.id, event.issuer, milliseconds(event.issued_at), event.digest)


def _not_kept(told: PersonFinding) -> str:
    """What the record says of a fact about a person that is not kept."""
    return f"{told.name} that no task type takes" if told.whose.subject else f"{told.name} of a session"


def _types(event: SecurityEvent) -> list[str]:
    return [kind[:AUDITED_TEXT] for kind in event.events]


def _said(
    event: SecurityEvent, found: Collection[Finding], acts: Collection[PersonAct], others: Collection[str]
) -> dict[str, Any]:
    """What the record says of an event. For people it has what was done and no name: that has records of its own."""
    return {
        "issuer": event.issuer,
        "signal": event.id,
        "types": _types(event),
        "subjects": sorted({each.subject for each in found}),
        "facts": {each.name: each.value for each in found},
        "people": [f"{each.deed} by {each.event}" for each in acts],
        "not_ours": [each[:AUDITED_TEXT] for each in others],
    }
