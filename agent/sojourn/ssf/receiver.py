"""Signed events of outside issuers (Shared Signals, CAEP): each that is good is published as facts, once.

An event is remembered by issuer and `jti` as long as it could be handed in again. It is claimed on disk before
anything is published and marked as done afterwards, together with its audit record: what was claimed and did not get
that far, by a failure or because the agent was killed, may be delivered again. A fact that is published twice then
has the time of its event, so that the second has no effect.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, Self
from weakref import WeakValueDictionary

import structlog

from sojourn.audit.journal import Audit, Event
from sojourn.errors import InvalidEvent, LimitExceeded, SojournError
from sojourn.facts.facts import Facts
from sojourn.facts.publications import Publication
from sojourn.limits import AUDITED_TEXT, JWT_LEEWAY_SECONDS, SIGNALS_REMEMBERED
from sojourn.runtime.clock import Clock
from sojourn.settings.tables import SignalsConfig
from sojourn.spiffe.ids import TrustDomain
from sojourn.ssf import caep, security_events
from sojourn.ssf.issuer_keys import SignalKeys
from sojourn.ssf.security_events import Rules, SecurityEvent, UnverifiedEvent
from sojourn.tasktoken.task_id import is_task_id

log = structlog.get_logger()
ACCEPTED, REPEATED = "accepted", "repeated"
# What the store finds of an event: nothing; an earlier delivery that is done; another event with the same jti; nothing,
# but it is no younger than some that were forgotten; nothing, and there is no room.
Found = Literal["fresh", "repeated", "other", "forgotten", "full"]


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


@dataclass(slots=True)
class Issuer:
    """One issuer that is heard: its rules and keys, and what came from it since the agent started.

    `publishers` are the SPIFFE IDs that may hand its events in; if empty, every process on the machine may.
    """

    rules: Rules
    keys: SignalKeys
    valid_seconds: float | None = None
    publishers: frozenset[str] = frozenset()
    accepted: int = 0
    repeated: int = 0
    refused: int = 0  # that said they were its
    last_at: datetime | None = None

    @classmethod
    def of(cls, config: SignalsConfig, audience: str) -> Self:
        """As the configuration has it; `audience` is for one that names none."""
        rules = Rules(config.issuer, config.audience or audience, config.max_age.total_seconds())
        valid = None if config.valid is None else config.valid.total_seconds()
        return cls(rules, SignalKeys(config.jwks), valid, frozenset(config.publishers))


class Signals:
    """Takes events in."""

    def __init__(
        self,
        issuers: Collection[Issuer],
        facts: Facts,
        is_live: Callable[[str], bool],
        store: SignalStore,
        audit: Audit,
        clock: Clock,
        trust_domain: TrustDomain,
    ) -> None:
        """`is_live` says whether a task lives: of one that does not, nothing is of any account."""
        self.issuers: Mapping[str, Issuer] = {each.rules.issuer: each for each in issuers}
        self._facts = facts
        self._is_live = is_live
        self._store = store
        self._audit = audit
        self._clock = clock
        self._trust_domain = trust_domain
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self) -> None:
        """Look at all keys, so that a file that cannot be used is told before the first event comes."""
        for issuer in self.issuers.values():
            await issuer.keys.look()

    def issuer_of(self, unverified: UnverifiedEvent) -> Issuer:
        """The issuer that a token says it is of. Raise InvalidEvent if it is none that is heard."""
        issuer = self.issuers.get(unverified.unverified_issuer)
        if issuer is None:
            raise InvalidEvent("the token's issuer is none that this agent hears", err=security_events.INVALID_ISSUER)
        return issuer

    async def take(self, unverified: UnverifiedEvent, by: Mapping[str, Any]) -> str:
        """Verify an event and publish what it says. Return ACCEPTED, or REPEATED if that was done before.

        `by` says who handed it in. Raise InvalidEvent if it is not good, and other errors of ours if it may be by and
        by: then it can be delivered again.
        """
        issuer = self.issuer_of(unverified)
        event = security_events.verify(unverified, issuer.rules, await issuer.keys.current(), self._clock.now())
        found = caep.findings(event, self._trust_domain, self._clock.now())
        turn = self._turns.setdefault(event.id, asyncio.Lock())
        async with turn:
            claimed = Claimed(event.id, event.issuer, int(event.issued_at.timestamp() * 1000), event.digest)
            if not await self._claim(claimed, issuer.rules):
                issuer.repeated += 1
                return REPEATED
            found = tuple(each for each in found if not is_task_id(each.subject) or self._is_live(each.subject))
            changed = [each.name for each in found if await self._publish(each, issuer, event, by)]
            await self._store.done(claimed, self._record(event, found, changed, by))
        issuer.accepted += 1
        issuer.last_at = self._clock.now()
        log.info("signal_accepted", issuer=event.issuer, types=_types(event), changed=changed, **by)
        return ACCEPTED

    def refused(self, unverified: UnverifiedEvent | None, error: SojournError, who: int, by: Mapping[str, int]) -> None:
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

    async def _claim(self, event: Claimed, rules: Rules) -> bool:
        # The clock may be set back a little without an event being both forgotten and young enough.
        kept_seconds = rules.max_age_seconds + JWT_LEEWAY_SECONDS
        found = await self._store.claim(event, int((self._clock.now().timestamp() - kept_seconds) * 1000))
        if found == "other":
            raise InvalidEvent("the token's jti was used for another event")
        if found == "forgotten":
            raise InvalidEvent("the token is of a time of which others are forgotten, so it may have been used")
        if found == "full":
            raise LimitExceeded(f"{SIGNALS_REMEMBERED} events of the issuer are remembered: come again later")
        return found == "fresh"

    async def _publish(self, found: caep.Finding, issuer: Issuer, event: SecurityEvent, by: Mapping[str, Any]) -> bool:
        publication = Publication(
            found.name, found.subject, found.value, event.issuer, issuer.valid_seconds, found.happened_at
        )
        return await self._facts.publish(publication, {**by, "signal": event.id})

    def _record(
        self, event: SecurityEvent, found: Collection[caep.Finding], changed: list[str], by: Mapping[str, Any]
    ) -> Event:
        fields = {
            "issuer": event.issuer,
            "signal": event.id,
            "types": _types(event),
            "subjects": sorted({each.subject for each in found}),
            "facts": {each.name: each.value for each in found},
            "changed": changed,
            **by,
        }
        return self._audit.event("signal_accepted", fields)


def _types(event: SecurityEvent) -> list[str]:
    return [kind[:AUDITED_TEXT] for kind in event.events]
