"""Facts: what operators, workloads and signed events say of the world, and task types read.

A fact is kept for each name, subject and source. While a change of one is not on disk, two worlds count: what is on
disk, and what was said. Policy must allow in both, so that what the change forbids is in force at once, and what it
allows no sooner than it would survive a crash. If the write fails it stays so.

Ages and validity run on the boot clock. In the database they stand by both clocks: that of the boot counts until the
machine is started again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import structlog

from sojourn.audit.journal import Audit, Event
from sojourn.errors import LimitExceeded, SojournError
from sojourn.facts import readings
from sojourn.facts.publications import Fact, Key, Publication, Said, StoredFact, check, check_name
from sojourn.limits import FACTS, FACTS_OF_OTHERS, FACTS_PER_ISSUER, FACTS_PER_WORKLOAD
from sojourn.policy.cedar_schema import Context, Param
from sojourn.policy.task_type_tables import OPERATOR, FactRule
from sojourn.quota.lru import Lru
from sojourn.quota.usage import Usage
from sojourn.runtime.background import Background
from sojourn.runtime.clock import Alarm, Alarms, Clock

log = structlog.get_logger()
ANYWHERE = ""


class FactStore(Protocol):
    """Where facts are kept, each change together with its audit record."""

    def load(self) -> Sequence[StoredFact]: ...

    async def save(self, key: Key, document: Mapping[str, Any], event: Event) -> None: ...

    async def drop(self, keys: Sequence[Key], events: Sequence[Event]) -> None: ...


@dataclass(frozen=True, slots=True)
class FactChange:
    """A change of what is said under a key. `before` and `after`: None, nothing.

    Told before it is on disk (`written` is False), when it may take away; what time ends is told when it has.
    """

    key: Key
    before: Fact | None
    after: Fact | None
    written: bool
    before_written: bool = True  # whether `before` had been on disk


Then = Callable[[], Awaitable[None]]  # what is to be done once the change is on disk
Heard = Callable[[FactChange], Awaitable[Then | None]]


class Facts:
    """All facts of this agent."""

    def __init__(self, store: FactStore, audit: Audit, clock: Clock, alarms: Alarms) -> None:
        self.revision = 0  # grows with whatever changes what a reader could read
        self._store = store
        self._audit = audit
        self._clock = clock
        self._alarms = alarms
        self._written: dict[str, dict[tuple[str, str], Fact]] = {}  # name -> (subject, source): what is on disk
        self._unwritten: dict[str, dict[tuple[str, str], Fact | None]] = {}  # what is not; None: there is none any more
        self._per_source = Usage[str]()
        self._keys: set[Key] = set()
        self._per_subject: dict[str, set[Key]] = {}
        self._said: Lru[Key, Said] = Lru(FACTS, by_age=True)  # when what is not any more was last said
        self._ends: dict[Key, Alarm] = {}
        self._hooks: list[Heard] = []
        self._background = Background("fact_failed")

    def on_change(self, hook: Heard) -> None:
        """Call `hook` for each change, and what it returns once the change is on disk. Neither raises."""
        self._hooks.append(hook)

    # --- saying -----------------------------------------------------------------------------------------------------

    async def publish(self, publication: Publication, by: Mapping[str, Any]) -> bool:
        """Take a fact. False, and nothing changed: the source has said something later, or it is over already.

        Returns when it is on disk and all that depends on it was decided again. Raises InvalidInput, LimitExceeded,
        or what the store raises: then what the fact forbids is in force, and what it allows is not.
        """
        check(publication)
        key = (publication.name, publication.subject, publication.source)
        last = self._last_said(key)
        fact = Fact.of(publication, self._clock.now(), self._clock.boot(), last)
        if fact.said.is_before(last) or fact.over(self._clock.boot()):
            return False
        self._check_room(key)
        event = self._audit.event(
            "fact_published",
            {
                **_named(key),
                "value": fact.value,
                "valid_seconds": publication.valid_seconds,
                "happened_at": fact.happened_at.timestamp(),
                **by,
            },
        )
        document = fact.document(self._clock.now(), self._clock.boot())
        await self._change(key, fact, lambda: self._store.save(key, document, event))
        return True

    async def unset(self, name: str, subject: str, source: str, by: Mapping[str, Any]) -> bool:
        """Take back what a source has said. False: it said nothing. Raises as `publish` does."""
        check_name(name)
        key = (name, subject, source)
        if self.find(key) is None:
            return False
        event = self._audit.event("fact_unset", {**_named(key), **by})
        await self._change(key, None, lambda: self._store.drop([key], [event]))
        return True

    def happens_now(self, name: str, subject: str, source: str) -> datetime:
        """The time of what is said on our own sockets: it is later than what the source said before.

        So that nothing that is said is ignored because the wall clock was set back.
        """
        last = self._last_said((name, subject, source))
        return max(self._clock.now(), last.happened_at) if last is not None else self._clock.now()

    # --- reading ----------------------------------------------------------------------------------------------------

    def all(self) -> list[Fact]:
        """What was said last under each key, by name, subject and source. What is over is not there."""
        boot = self._clock.boot()
        found = (self.find(key) for key in sorted(self._keys))
        return [fact for fact in found if fact is not None and not fact.over(boot)]

    def known(self) -> Collection[Key]:
        """Under what something was said, in no order."""
        return self._keys

    def present(self, key: Key) -> Fact | None:
        """What was said last under a key, if it is not over."""
        fact = self.find(key)
        return None if fact is None or fact.over(self._clock.boot()) else fact

    def find(self, key: Key) -> Fact | None:
        """What was said last under a key."""
        name, place = key[0], key[1:]
        unwritten = self._unwritten.get(name, {})
        return unwritten[place] if place in unwritten else self._written.get(name, {}).get(place)

    def is_written(self, key: Key) -> bool:
        """Whether what was said last is on disk."""
        return key[1:] not in self._unwritten.get(key[0], {})

    def age(self, fact: Fact) -> float:
        """Seconds since it came to be so."""
        return self._clock.boot() - fact.since

    def context(self, params: Mapping[str, Param], rules: Mapping[str, FactRule], subjects: Sequence[str]) -> Context:
        """What policies with these rules may read: of the first source that said something about one of `subjects`."""
        boot = self._clock.boot()
        return readings.context(params, rules, subjects, boot, self._written, self._unwritten)

    # --- the start, and ends ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take over what earlier runs have left: before anything reads it. Raise what the store raises."""
        now, boot = self._clock.now(), self._clock.boot()
        over: list[tuple[Key, str]] = []
        for stored in self._store.load():
            try:
                fact = Fact.stored(stored, now, boot)
            except Exception as error:  # noqa: BLE001  # a damaged row may raise anything, and must not stop the agent
                log.error("fact_damaged", name=str(stored.key[0])[:64], reason=type(error).__name__)
                over.append((stored.key, "damaged"))
                continue
            if fact.over(boot):
                over.append((fact.key, "expired"))
                continue
            self._keep(fact.key)
            self._written.setdefault(fact.name, {})[fact.key[1:]] = fact
            self._arm(fact.key)
        if over:
            await self._store.drop(
                [key for key, _ in over],
                [self._audit.event("fact_expired", {**_named(key), "reason": reason}) for key, reason in over],
            )

    def forget_subject(self, subject: str) -> None:
        """A task is over, and what was said of it alone is of no account any more."""
        for key in list(self._per_subject.get(subject, ())):
            self._end(key, "task_over")

    async def quiet(self) -> None:
        """Return when no change is under way."""
        await self._background.quiet()

    # --- changing ---------------------------------------------------------------------------------------------------

    async def _change(self, key: Key, fact: Fact | None, write: Callable[[], Awaitable[None]]) -> None:
        """Put a change into force, whether or not somebody still waits for it."""
        change = FactChange(key, self.find(key), fact, written=False, before_written=self.is_written(key))
        self._keep(key)
        self._unwritten.setdefault(key[0], {})[key[1:]] = fact
        if fact is not None:
            self._said.drop(key)
        elif change.before is not None:
            self._said.put(key, change.before.said)
        self.revision += 1
        self._arm(key)
        await asyncio.shield(self._background.run(self._carry_out(change, write())))

    async def _carry_out(self, change: FactChange, write: Awaitable[None]) -> None:
        key, place = change.key, change.key[1:]
        writing = asyncio.ensure_future(write)  # it has its place among the writes before others have their turn
        then = await self._tell(change)
        try:
            await writing
        except SojournError as error:
            raise type(error)(
                f"{error.public}: what it forbids is in force until the agent stops, what it allows is not; "
                "say it again",
                detail=error.detail,
            ) from error
        if key not in self._keys:  # it ended while it was being written
            await self._ended(change, self._audit.event("fact_expired", {**_named(key), "reason": "expired"}))
            return
        self._written.setdefault(key[0], {}).pop(place, None)
        if change.after is not None:
            self._written[key[0]][place] = change.after
        unwritten = self._unwritten.get(key[0], {})
        if place in unwritten and unwritten[place] is change.after:  # nothing was said since
            self._settled(key)
        self.revision += 1
        self._arm(key)
        for each in then:
            await each()

    def _settled(self, key: Key) -> None:
        """What is on disk is all there is under a key."""
        unwritten = self._unwritten.get(key[0], {})
        unwritten.pop(key[1:], None)
        if not unwritten:
            self._unwritten.pop(key[0], None)
        written = self._written.get(key[0], {})
        if key[1:] not in written and key in self._keys:
            self._keys.discard(key)
            self._per_subject[key[1]].discard(key)
            if not self._per_subject[key[1]]:
                del self._per_subject[key[1]]
            self._per_source.remove(key[2])
        if not written:
            self._written.pop(key[0], None)

    def _arm(self, key: Key) -> None:
        """End what is under a key when its time is over; what was set before is off."""
        alarm = self._ends.pop(key, None)
        if alarm is not None:
            alarm.cancel()
        both = (self._written.get(key[0], {}).get(key[1:]), self.find(key))
        ends = [fact.until for fact in both if fact is not None and fact.until is not None]
        if ends:
            self._ends[key] = self._alarms.at(min(ends), self._look, key)

    def _look(self, key: Key) -> None:
        """Something under a key is over."""
        boot = self._clock.boot()
        written, said = self._written.get(key[0], {}).get(key[1:]), self.find(key)
        if said is not None and said.over(boot):
            self._end(key, "expired")
        elif written is not None and written.over(boot):
            self._written[key[0]].pop(key[1:])
            self.revision += 1
            self._background.run(self._told(FactChange(key, written, said, written=True)))
            self._arm(key)
        else:
            self._arm(key)

    def _end(self, key: Key, reason: str) -> None:
        """What is under a key is no more, from now on. Its end needs no disk: it was written with the fact."""
        before = self.find(key)
        self._written.get(key[0], {}).pop(key[1:], None)
        self._settled(key)
        if before is not None:
            self._said.put(key, before.said)
        self.revision += 1
        self._arm(key)
        event = self._audit.event("fact_expired", {**_named(key), "reason": reason})
        self._background.run(self._ended(FactChange(key, before, None, written=True), event))

    async def _told(self, change: FactChange) -> None:
        await self._tell(change)

    async def _ended(self, change: FactChange, event: Event) -> None:
        await self._tell(change)
        try:
            if self.find(change.key) is None:
                await self._store.drop([change.key], [event])
        except SojournError as error:  # it stands there as over, and is dropped at the next start
            log.error("fact_not_dropped", name=change.key[0], reason=error.public, detail=error.detail)

    async def _tell(self, change: FactChange) -> list[Then]:
        heard = [await hook(change) for hook in self._hooks]
        return [each for each in heard if each is not None]

    # --- limits -----------------------------------------------------------------------------------------------------

    def _check_room(self, key: Key) -> None:
        if key in self._keys:
            return
        source = key[2]
        most = {OPERATOR: FACTS, "https": FACTS_PER_ISSUER}.get(source.partition("://")[0], FACTS_PER_WORKLOAD)
        if self._per_source[source] >= most:
            raise LimitExceeded(f"this source may have {most} facts: take back some, or let them end")
        if len(self._keys) >= (FACTS if source == OPERATOR else FACTS_OF_OTHERS):
            raise LimitExceeded("too many facts are known: take back some, or let them end")

    def _keep(self, key: Key) -> None:
        if key not in self._keys:
            self._keys.add(key)
            self._per_subject.setdefault(key[1], set()).add(key)
            self._per_source.add(key[2])

    def _last_said(self, key: Key) -> Said | None:
        fact = self.find(key)
        return fact.said if fact is not None else self._said.get(key)


def _named(key: Key) -> dict[str, str]:
    return {"fact": key[0], "subject": key[1], "source": key[2]}
