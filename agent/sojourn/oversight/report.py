"""What of a task type was used, and what was not: the evidence by which a narrower type can be proposed.

What was not used is said of what the type allows now, over the days in which it has been as it is. It says that nobody
needed it then, and not that nobody will.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from sojourn.operating_limits import USAGE_DAYS_ENOUGH, USAGE_TASKS_ENOUGH
from sojourn.oversight.histogram import Histogram
from sojourn.oversight.seen_values import SeenValues
from sojourn.oversight.sums import DAY_MS, ActionKey, ActionSum, Sums, TypeKey, TypeSum
from sojourn.policy.task_types import TaskType

OUTSIDE: Final = "outside"  # a provider's: nobody tells the agent of calls there
NO_REPORTS: Final = "no_reports"  # no service told of a single call there


@dataclass(frozen=True, slots=True)
class Spread:
    """The greatest of some numbers, and one that 99 of 100 do not exceed."""

    greatest: int = 0
    p99: int = 0

    @classmethod
    def of(cls, histogram: Histogram) -> Self:
        return cls(histogram.greatest, histogram.quantile(0.99))


@dataclass(frozen=True, slots=True)
class ActionUse:
    """One action that a workload had. `limit`: how often a family of tasks may do it, if that is counted.

    `blind`: why nobody tells of calls, OUTSIDE or NO_REPORTS; then `called`, `calls` and `unused_tokens` say nothing.
    """

    workload: str
    resource: str
    action: str
    sum: ActionSum
    limit: int | None
    blind: str


@dataclass(frozen=True, slots=True)
class WorkloadUse:
    """Tasks that a workload began, and those that were handed on to it."""

    workload: str
    began: int
    accepted: int


@dataclass(frozen=True, slots=True)
class Unused:
    """What the type allows, and nobody made use of. An action is used by whoever took a token for it."""

    workloads: tuple[str, ...] = ()  # of allowed_workloads, that began no task
    delegates: tuple[str, ...] = ()  # of delegation.to, that accepted none
    resources: tuple[str, ...] = ()  # of which no action was used
    actions: tuple[tuple[str, str], ...] = ()  # (resource, action)
    uncalled: tuple[tuple[str, str], ...] = ()  # used, and no service told of a call, where services tell
    bindings: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()  # that decided nothing
    facts: tuple[str, ...] = ()  # that had one value each time, or none, and so changed no answer


@dataclass(frozen=True, slots=True)
class TypeUse:
    """One type. `since_ms`: from when on, no earlier than it is as it is, and than anything was counted.

    `enough`: whether that is long enough, and were enough tasks, for what was not used to mean something; else
    `lacking` says what there is. `before`: tasks in the days that were asked for of the type as it was before.
    """

    type: str
    digest: str
    since_ms: int
    until_ms: int
    tasks: int
    before: int
    enough: bool
    lacking: str
    seconds_max: float
    seconds_p99: float
    tokens: Spread
    calls: Spread
    depth: Spread
    children: Spread
    workloads: tuple[WorkloadUse, ...]
    actions: tuple[ActionUse, ...]
    bindings: Mapping[str, int]
    policies: Mapping[str, int]
    denials: Mapping[str, int]
    params: Mapping[str, SeenValues]
    facts: Mapping[str, SeenValues]
    unused: Unused


@dataclass(frozen=True, slots=True)
class Asked:
    """The time that a report is about. `counted_since_ms`: before that nothing was counted, or it is gone.

    `in_force`: since when each type is as it is, by its name.
    """

    since_ms: int
    until_ms: int
    counted_since_ms: int
    in_force: Mapping[str, int] = field(default_factory=dict)

    def since(self, kind: TaskType) -> int:
        """From when on there is evidence of a type."""
        return min(self.until_ms, max(self.since_ms, self.counted_since_ms, self.in_force.get(kind.name, 0)))


def report(kinds: Iterable[TaskType], sums: Sums, asked: Asked, workload: str = "") -> list[TypeUse]:
    """What was used of each type, in their order; with `workload` by that one alone, and then nothing is said of what
    others did not use.
    """
    heard = {key.resource for key, each in sums.actions.items() if each.calls}
    types: dict[str, list[TypeKey]] = {}
    actions: dict[str, list[ActionKey]] = {}
    for key in sums.types:
        types.setdefault(key.type, []).append(key)
    for name in sums.actions:
        actions.setdefault(name.type, []).append(name)
    made = []
    for kind in kinds:
        one = _OfType(kind, asked, workload, heard)
        one.take_types((key, sums.types[key]) for key in types.get(kind.name, ()))
        one.take_actions((name, sums.actions[name]) for name in actions.get(kind.name, ()))
        made.append(one.use())
    return made


class _OfType:
    """One type, as its sums are taken."""

    def __init__(self, kind: TaskType, asked: Asked, workload: str, heard: set[str]) -> None:
        self._kind = kind
        self._asked = asked
        self._workload = workload
        self._heard = heard
        self._digest = kind.named["type_version"]
        self._sum = TypeSum()
        self._before = 0
        self._workloads: dict[str, WorkloadUse] = {}
        self._actions: dict[tuple[str, str, str], ActionSum] = {}

    def take_types(self, sums: Iterable[tuple[TypeKey, TypeSum]]) -> None:
        for key, each in sums:
            if self._workload not in {"", key.workload}:
                continue
            if key.digest != self._digest:
                self._before += each.tasks
                continue
            self._sum.merge(each)
            self._workloads[key.workload] = WorkloadUse(key.workload, each.depth.nothing, each.depth.more)

    def take_actions(self, sums: Iterable[tuple[ActionKey, ActionSum]]) -> None:
        for key, each in sums:
            if key.digest == self._digest and self._workload in {"", key.workload}:
                self._actions[key.workload, key.resource, key.action] = each

    def use(self) -> TypeUse:
        kind, whole = self._kind, self._sum
        since = self._asked.since(kind)
        lacking = _lacking((self._asked.until_ms - since) / DAY_MS, whole.tasks)
        own = {clause.id: 0 for clause in kind.policy.clauses}
        return TypeUse(
            type=kind.name,
            digest=kind.digest,
            since_ms=since,
            until_ms=self._asked.until_ms,
            tasks=whole.tasks,
            before=self._before,
            enough=not lacking,
            lacking=lacking,
            seconds_max=whole.milliseconds.greatest / 1_000,
            seconds_p99=whole.milliseconds.quantile(0.99) / 1_000,
            tokens=Spread.of(whole.tokens),
            calls=Spread.of(whole.calls),
            depth=Spread.of(whole.depth),
            children=Spread.of(whole.children),
            workloads=tuple(self._workloads[each] for each in sorted(self._workloads)),
            actions=tuple(self._action(*name) for name in sorted(self._actions)),
            bindings=whole.bindings,
            policies={**own, **whole.policies},
            denials=whole.denials,
            params=whole.params,
            facts=whole.facts,
            unused=self._unused(),
        )

    def _action(self, workload: str, resource: str, action: str) -> ActionUse:
        found = self._actions[workload, resource, action]
        return ActionUse(workload, resource, action, found, self._kind.limits.get(action), self._blind(resource))

    def _blind(self, resource: str) -> str:
        if resource in self._kind.outside:
            return OUTSIDE
        return "" if resource in self._heard else NO_REPORTS

    def _unused(self) -> Unused:
        kind, whole = self._kind, self._sum
        granted = [(grant.resource, action) for grant in kind.ceiling.grants for action in grant.actions]
        used = {name[1:] for name, each in self._actions.items() if each.taken or each.tokens or each.calls}
        called = {name[1:] for name, each in self._actions.items() if each.calls}
        dead = [each for each in dict.fromkeys(granted) if each not in used]
        uncalled = [each for each in used - called if not self._blind(each[0]) and each in granted]
        began, accepted = (
            {each.workload for each in self._workloads.values() if getattr(each, how)} for how in ("began", "accepted")
        )
        allowed = {str(each) for each in kind.allowed_workloads}
        delegates = set(kind.delegation.to) if kind.delegation is not None else set()
        alone = {self._workload} if self._workload else allowed | delegates
        return Unused(
            workloads=tuple(sorted((allowed & alone) - began)),
            delegates=tuple(sorted((delegates & alone) - accepted)),
            resources=tuple(sorted({resource for resource, _ in dead} - {resource for resource, _ in used})),
            actions=tuple(sorted(dead)),
            uncalled=tuple(sorted(uncalled)),
            bindings=tuple(sorted(kind.bindings - whole.bindings.keys())),
            policies=tuple(clause.id for clause in kind.policy.clauses if clause.id not in whole.policies),
            facts=tuple(name for name in kind.facts if name not in whole.facts or whole.facts[name].constant),
        )


def _lacking(days: float, tasks: int) -> str:
    """What is too little for a conclusion; empty: nothing is."""
    if days >= USAGE_DAYS_ENOUGH and tasks >= USAGE_TASKS_ENOUGH:
        return ""
    return f"not enough evidence: {int(days)} of {USAGE_DAYS_ENOUGH} days, {tasks} of {USAGE_TASKS_ENOUGH} tasks"
