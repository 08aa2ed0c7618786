"""Another set of task types comes into force, and every live task of a changed type is decided again by it.

From the moment the set is in force nothing is decided by the old one: tasks have their new type before the first of
them is decided again, so that a token is asked of the new policy too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sojourn.limits import REDECIDED_AT_ONCE
from sojourn.policy import rules
from sojourn.policy.cedar_schema import Param
from sojourn.policy.task_types import TaskType, TypeSet
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.mass_end import end_all
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.task import PENDING, REVOKED, Task
from sojourn.tasktoken.end_reasons import FACTS, POLICY_CHANGED
from sojourn.tasktoken.grants import Authority

END, NARROW, KEEP = "end", "narrow", "keep"


@dataclass(frozen=True)
class Consequence:
    """What another set means for a live task: `lost` are the (resource, action) pairs that it would have no more."""

    task: Task
    outcome: str  # end | narrow | keep
    lost: tuple[tuple[str, str], ...]
    why: str
    left: Authority
    params: Mapping[str, Param]


class PolicyReload:
    """Exchanges the engine's task types."""

    def __init__(self, engine: TaskEngine, changing: TaskChanges) -> None:
        self._engine = engine
        self._changing = changing
        self._applied: Callable[[], Awaitable[None]] = _nothing

    def consequences(self, types: TypeSet) -> list[Consequence]:
        """What `types` would do to each live task of a type that they change. Nothing is changed."""
        concerned = self._concerned(types)
        mixed = self._mixed(concerned, types)
        return [self._consequence(task, types.get(task.type.name), mixed) for task in concerned]

    async def apply(self, types: TypeSet) -> list[Consequence]:
        """Bring `types` into force. Return when what they end and narrow is on disk; validators were told before."""
        concerned = self._concerned(types)
        before = [task.type for task in concerned]
        self._engine.types = types
        if self._engine.shadow is not None:
            self._engine.shadow.replace(self._engine.shadow.types)
        found: list[Consequence] = []
        gone: list[Task] = []
        for task in concerned:
            kind = types.get(task.type.name)
            if kind is None:
                found.append(self._consequence(task, None, ()))
                gone.append(task)  # with its children, which are of the type too
            else:
                task.retype(kind)
        for task, kind in zip(concerned, before, strict=True):
            if task.live and task.state != PENDING and _asks_more(kind, task):
                self._changing.supersede(task)
        mixed = self._mixed([task for task in concerned if task.live], types)
        await end_all(self._engine, gone, REVOKED, POLICY_CHANGED)
        for number, task in enumerate(concerned):
            if number % REDECIDED_AT_ONCE == REDECIDED_AT_ONCE - 1:
                await asyncio.sleep(0)  # others have their turn
            if task.live:
                found.append(self._decide_again(task, mixed))
        await self._applied()
        for each in found:
            await self._engine.journal.told(each.task.id)
        return found

    def on_applied(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Call `hook` when another set is in force and tasks were decided by it."""
        self._applied = hook

    def _concerned(self, types: TypeSet) -> list[Task]:
        """Live tasks whose type is another in `types`, or gone."""
        digests = {name: kind.digest for name, kind in types.items()}
        return [task for task in self._engine.tasks.all() if digests.get(task.type.name) != task.type.digest]

    def _mixed(self, concerned: Sequence[Task], types: TypeSet) -> Collection[str]:
        """Those for one of several people in one process whose types do not let that any more, by ID.

        Where each use had to say for whom it is, it need not by now, and a wrong task would be taken for the right one.
        """
        alone = [task for task in concerned if (rule := _type_of(types, task).person) and not rule.several]
        is_alone = self._engine.tasks.people.is_alone
        return {task.id for task in alone if not is_alone(task, lambda each: _type_of(types, each))}

    def _decide_again(self, task: Task, mixed: Collection[str]) -> Consequence:
        found = self._consequence(task, task.type, mixed)
        if found.outcome == END:
            self._engine.end(task, REVOKED, POLICY_CHANGED)
            return found
        task.reread(found.params)
        self._shorten(task)
        if task.live and found.outcome == NARROW:
            self._changing.take(task, found.left, POLICY_CHANGED)
        return found

    def _shorten(self, task: Task) -> None:
        """A task lives no longer than its type says now; it is never prolonged."""
        began = task.deadline - (task.expires_at - task.created_at).total_seconds()
        longest = task.type.max_duration
        latest = began + longest.total_seconds()
        task.end_by(latest, task.created_at + longest, latest)
        for each in (task, *self._engine.family.descendants(task)):
            each.end_by(task.deadline, task.expires_at, latest)
            self._engine.deadlines.watch(each)

    def _consequence(self, task: Task, kind: TaskType | None, mixed: Collection[str]) -> Consequence:
        if task.state == PENDING:  # whoever agrees must know what to
            left, params, why = Authority(()), task.params, "it waits for approval of what its type was"
        elif kind is None:
            left, params, why = Authority(()), task.params, "there is no such task type any more"
        elif task.id in mixed:
            left, params, why = Authority(()), task.params, "its process has tasks for several people"
        else:
            context = self._engine.context(task, kind)
            asked = FACTS not in task.suspensions  # what is suspended for its facts is decided when it comes back
            left, params, why = rules.left_by(
                kind, task.principal(self._engine.clock.now()), task.authority, context, task.held_as, asked=asked
            )
        lost = tuple(left.excess(task.authority))
        outcome = KEEP if not lost else NARROW if left.grants else END
        return Consequence(task, outcome, lost, why, left, params)


def _type_of(types: TypeSet, task: Task) -> TaskType:
    """The type of a task once these are in force; what it is now, if there is none of its name."""
    return types.get(task.type.name) or task.type


def _asks_more(before: TaskType, task: Task) -> bool:
    """Whether the tokens of a task say less of its actions than they must by now.

    That they are counted, that they are high, or that a parameter more concerns them.
    """
    kind = task.type
    more = (kind.limits.keys() - before.limits.keys()) | (kind.high - before.high)
    actions = {action for grant in task.authority.grants for action in grant.actions}
    return any(each in more or set(kind.concerning(each)) - set(before.concerning(each)) for each in actions)


async def _nothing() -> None:
    return None
