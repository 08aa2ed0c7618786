"""What becomes of live tasks when a fact that their type reads changes, ends, or becomes too old.

Exactly those are decided again whose type reads the fact and believes its source, and whom it is about. What is denied
then goes as the type's `on_deny` says; a task that was suspended for it comes back when policy allows all again.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from sojourn.errors import FailedPrecondition, SojournError
from sojourn.facts import readings
from sojourn.facts.facts import ANYWHERE, FactChange, Facts, Then
from sojourn.facts.publications import Fact, Key
from sojourn.limits import REDECIDED_AT_ONCE, WRITES_PER_COMMIT
from sojourn.people.person import is_pseudonym
from sojourn.policy import rules
from sojourn.policy.cedar_schema import Param
from sojourn.policy.task_types import TaskType, TypeSet
from sojourn.runtime.background import Background
from sojourn.runtime.clock import Alarm, Alarms
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.task import PENDING, REVOKED, Task
from sojourn.tasktoken.end_reasons import CONTEXT_CHANGED, FACTS
from sojourn.tasktoken.task_id import is_task_id

log = structlog.get_logger()
NARROW, SUSPEND, REVOKE = "narrow", "suspend", "revoke"
_STRICTNESS = (NARROW, SUSPEND, REVOKE)
_SOON = 0.001  # seconds: an alarm never rings before its time


@dataclass(slots=True)
class _Watch:
    """The next moment at which a fact is too old for some type."""

    alarm: Alarm
    looked: float  # boot clock: what became too old before was seen to


class Reevaluation:
    """Follows the facts of the engine."""

    def __init__(self, engine: TaskEngine, changing: TaskChanges, facts: Facts, alarms: Alarms) -> None:
        self._engine = engine
        self._changing = changing
        self._facts = facts
        self._alarms = alarms
        self._types: TypeSet | None = None
        self._readers: dict[str, list[TaskType]] = {}
        self._watches: dict[Key, _Watch] = {}
        self._background = Background("not_decided_again")
        self._late: dict[str, Task] = {}  # to be resumed, and could not be
        facts.on_change(self._changed)

    def start(self) -> None:
        """Decide the tasks again that an earlier run has left, and watch all facts."""
        self.watch_all()
        left = [task for task in self._engine.tasks.all() if task.type.facts]
        allowed = [task for task in left if task.live and self._decide_again(task, task.type.facts)]
        self._background.run(self._resume(allowed))

    async def reloaded(self) -> None:
        """Other task types are in force: facts are too old at other times, and what was suspended may come back."""
        self.watch_all()
        suspended = [task for task in self._engine.tasks.all() if FACTS in task.suspensions]
        await self._resume(await self._all_again(suspended, None))

    def watch_all(self) -> None:
        for key in list(self._watches):
            self._watches.pop(key).alarm.cancel()
        for fact in self._facts.all():
            self._watch(fact.key, self._engine.clock.boot())

    def readers(self, name: str) -> Sequence[TaskType]:
        """The types in force that read a fact."""
        if self._types is not self._engine.types:
            self._types, self._readers = self._engine.types, {}
            for kind in self._types.values():
                for fact in kind.facts:
                    self._readers.setdefault(fact, []).append(kind)
        return self._readers.get(name, ())

    def is_believed(self, name: str, source: str, value: Param) -> bool:
        """Whether a type in force takes this fact from this source, with a value of this type."""
        rules = (kind.facts[name] for kind in self.readers(name))
        return any(source in rule.sources and rule.fits(value) for rule in rules)

    def otherwise(self, said: Fact) -> list[tuple[Fact, list[str]]]:
        """What says otherwise and counts before `said`, where it is about the same tasks; and the types for which."""
        others = [each for each in self._facts.all() if each.name == said.name and self._is_about_some_of(each, said)]
        found: dict[Key, tuple[Fact, list[str]]] = {}
        for kind in self.readers(said.name):
            for fact in readings.before(said, kind.facts[said.name], others, self._engine.clock.boot()):
                found.setdefault(fact.key, (fact, []))[1].append(kind.name)
        return list(found.values())

    def _is_about_some_of(self, one: Fact, other: Fact) -> bool:
        """Whether there may be a task that both are about."""
        subjects = {one.subject, other.subject} - {ANYWHERE}
        workloads, people = set(), set()
        for subject in subjects:
            task = self._engine.tasks.find(subject)
            if is_pseudonym(subject):
                people.add(subject)
            else:
                workloads.add(subject if task is None else str(task.spiffe_id))
            if task is not None:
                people.add(ANYWHERE if task.whom is None else task.whom.pseudonym)
        return len(workloads) < 2 and len(people) < 2 and sum(map(is_task_id, subjects)) < 2

    # --- changes ----------------------------------------------------------------------------------------------------

    async def _changed(self, change: FactChange) -> Then | None:
        name, subject, source = change.key
        self._watch(change.key, self._engine.clock.boot())
        kinds = [
            kind
            for kind in self.readers(name)
            if source in kind.facts[name].sources and not self._is_as_before(kind, change)
        ]
        allowed = await self._all_again(self._concerned(kinds, subject), {name}, said=not change.written)
        if change.written:
            await self._resume(allowed)
            return None
        return lambda: self._resume(allowed)

    def _is_as_before(self, kind: TaskType, change: FactChange) -> bool:
        """Whether the source only said again what counted already."""
        before, after = change.before, change.after
        if before is None or after is None or (type(before.value), before.value) != (type(after.value), after.value):
            return False
        boot, max_age = self._engine.clock.boot(), kind.facts[change.key[0]].max_age
        too_old = max_age is not None and boot - before.since >= max_age.total_seconds()
        return change.before_written and not too_old and not before.over(boot)

    def _concerned(self, kinds: Iterable[TaskType], subject: str) -> list[Task]:
        """The live tasks of these types that the subject is."""
        names = [kind.name for kind in kinds]
        if subject.startswith("tsk_"):
            task = self._engine.tasks.find(subject)
            return [task] if task is not None and task.live and task.type.name in names else []
        if is_pseudonym(subject):
            theirs = self._engine.tasks.people.of_pseudonym(subject)
            return [task for task in theirs if task.live and task.type.name in names]
        return [task for name in names for task in self._engine.tasks.of_type(name, subject or ANYWHERE)]

    async def _all_again(
        self, tasks: Sequence[Task], names: Collection[str] | None, *, said: bool = False
    ) -> list[Task]:
        """Decide these again, as long as they live; return those that are allowed all that they hold.

        `names`: the facts that changed; None: any of their type's. `said`: only by what is not on disk yet.
        """
        allowed = []
        for number, task in enumerate(tasks):
            if number % REDECIDED_AT_ONCE == REDECIDED_AT_ONCE - 1:
                await asyncio.sleep(0)  # others have their turn; tokens are decided by the facts as they are now
            if task.live and self._decide_again(task, task.type.facts if names is None else names, said=said):
                allowed.append(task)
        return allowed

    def _decide_again(self, task: Task, names: Collection[str], *, said: bool = False) -> bool:
        """Ask policy for all that a live task holds, and take away what it denies. True if that is nothing."""
        engine = self._engine
        if task.state == PENDING:  # it has no authority yet, and policy is asked when it would get some
            return True
        decided = engine.decided(task)
        left = task.authority
        for context in decided.context.also if said else (decided.context,):  # none: it is not what this task reads
            left = rules.still_allowed(task.type, decided.principal, left, context, decided)
        if left == task.authority:
            return True
        known = [name for name in names if name in task.type.facts]
        outcome = max((task.type.facts[name].on_deny for name in known), key=_STRICTNESS.index, default=REVOKE)
        on = {"facts_changed": sorted(known), **decided.record()}
        if outcome == REVOKE or (outcome == NARROW and not left.grants):
            engine.end(task, REVOKED, CONTEXT_CHANGED, **on)
        elif outcome == NARROW:
            self._changing.take(task, left, CONTEXT_CHANGED, **on)
        else:
            self._changing.hold(task, FACTS, _because(known), **on)
        return False

    async def _resume(self, tasks: Sequence[Task]) -> None:
        """Give those back that were suspended for this: once it is on disk, and later if it cannot be now."""
        held = [task for task in tasks if task.live and FACTS in task.suspensions]
        for start in range(0, len(held), WRITES_PER_COMMIT):
            some = held[start : start + WRITES_PER_COMMIT]
            resuming = (self._changing.resume(task, FACTS, whole=True) for task in some)
            done = await asyncio.gather(*resuming, return_exceptions=True)
            for task, error in zip(some, done, strict=True):
                if isinstance(error, SojournError):  # it stays suspended, or is over
                    log.info("task_not_resumed", task_id=task.id, reason=error.public)
                elif isinstance(error, BaseException):
                    log.error("task_not_resumed", task_id=task.id, exc_info=error)
                if isinstance(error, SojournError) and not isinstance(error, FailedPrecondition):
                    self._resume_later(task)

    def _resume_later(self, task: Task) -> None:
        """It was changed at that moment, or could not be written: nobody else would come back to it."""
        if not self._late:
            self._background.run(self._resume_late())
        self._late[task.id] = task

    async def _resume_late(self) -> None:
        await asyncio.sleep(self._engine.journal.retry_seconds)
        late, self._late = self._late, {}
        await self._resume(list(late.values()))

    # --- age --------------------------------------------------------------------------------------------------------

    def _watch(self, key: Key, looked: float) -> None:
        """Look again when the fact under a key has become too old for the next of the types that read it."""
        watch = self._watches.pop(key, None)
        if watch is not None:
            watch.alarm.cancel()
        fact = self._facts.find(key)
        moments = [] if fact is None else [at for at in self._too_old(fact).values() if at > looked]
        if moments:
            alarm = self._alarms.at(min(moments) + _SOON, self._look, key)
            self._watches[key] = _Watch(alarm, looked)

    def _too_old(self, fact: Fact) -> Mapping[str, float]:
        """When a fact is too old for each type that believes it, on the boot clock."""
        found: dict[str, float] = {}
        for kind in self.readers(fact.name):
            rule = kind.facts[fact.name]
            if rule.max_age is not None and fact.source in rule.sources:
                found[kind.name] = fact.since + rule.max_age.total_seconds()
        return found

    def _look(self, key: Key) -> None:
        watch, fact, boot = self._watches[key], self._facts.find(key), self._engine.clock.boot()
        self._facts.revision += 1
        if fact is not None:
            moments = self._too_old(fact)
            kinds = [kind for kind in self.readers(key[0]) if watch.looked < moments.get(kind.name, boot + 1) <= boot]
            self._background.run(self._aged(self._concerned(kinds, key[1]), key[0]))
        self._watch(key, boot)

    async def _aged(self, tasks: Sequence[Task], name: str) -> None:
        await self._resume(await self._all_again(tasks, {name}))

    async def quiet(self) -> None:
        """Return when what time has brought about is done."""
        await self._background.quiet()


def _because(names: Collection[str]) -> str:
    return f"policy denies it with fact {', '.join(repr(name) for name in sorted(names))} as it is"
