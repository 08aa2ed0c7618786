"""A candidate set of task types that is asked beside the one in force, and what it would answer otherwise.

It decides nothing: whatever goes wrong in it is counted, and changes no answer.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from time import perf_counter
from typing import Any

import structlog

from sojourn.jose.canonical_json import digest_of
from sojourn.limits import SHADOW_DIFFERENCES
from sojourn.policy.cedar import Allow, Deny
from sojourn.policy.cedar_schema import Context, Principal, inputs_of, seen_of
from sojourn.policy.params import texts_of
from sojourn.policy.questions import PolicyAnswer, Question, ask
from sojourn.policy.task_types import TaskType, TypeSet
from sojourn.runtime.clock import Clock
from sojourn.tasks.task import Task
from sojourn.tasktoken.grants import Grant

log = structlog.get_logger()
Read = Callable[[Task, TaskType], Context]  # what the policies of a type may read about a task
Heard = Callable[[Task, bool, float], object]  # a decision: of which task, whether it was yes, seconds that it took


@dataclass(frozen=True, slots=True)
class Difference:
    """One question that the two sets answer differently. The policies are those that decided."""

    type: str
    spiffe_id: str
    action: str
    resource: str
    allowed: bool
    policies: tuple[str, ...]
    candidate_allows: bool
    candidate_rule: str
    candidate_policies: tuple[str, ...]


@dataclass(slots=True)
class Seen:
    """How often a difference came up."""

    first_at: datetime
    last_at: datetime
    count: int = 0


class Shadow:
    """Compares, and remembers SHADOW_DIFFERENCES differences; `told` hears of each once."""

    def __init__(self, clock: Clock, told: Callable[[Difference, str], None]) -> None:
        self.types: TypeSet | None = None  # None: there is no candidate that could be asked
        self.differences: dict[Difference, Seen] = {}
        self.compared = 0
        self.errors = 0
        self.beyond = 0  # differences that there was no room for
        self._clock = clock
        self._told = told

    def replace(self, types: TypeSet | None) -> None:
        """Have another candidate, or another set in force: what was seen before is of no account."""
        self.types = types
        self.differences = {}
        self.compared = self.errors = self.beyond = 0

    def compare(self, task: Task, action: str, resource: str, decision: Allow | Deny, read: Read) -> None:
        """Ask the candidate what was just decided, with the facts that it reads. Never raises."""
        if self.types is None:
            return
        try:
            self._compare(self.types, task, action, resource, decision, read)
        except Exception:
            self.errors += 1
            log.exception("shadow_failed", type=task.type.name)

    def _compare(
        self, types: TypeSet, task: Task, action: str, resource: str, decision: Allow | Deny, read: Read
    ) -> None:
        kind = types.get(task.type.name)
        facts = read(task, kind).facts if kind is not None else {}
        question = Question(
            task.principal(self._clock.now()),
            action,
            resource,
            params=texts_of(task.params),
            binding=task.held_as,
            facts={name: fact.value for name, fact in facts.items()},
        )
        answer = (
            PolicyAnswer("type", Deny("there is no such task type"))
            if kind is None
            else ask(kind, question, limits=False)
        )
        self.compared += 1
        if bool(answer) == bool(decision):
            return
        found = Difference(
            task.type.name,
            question.principal.workload,
            action,
            resource,
            bool(decision),
            decision.policies,
            bool(answer),
            answer.rule,
            answer.decision.policies,
        )
        now = self._clock.now()
        if found not in self.differences:
            if len(self.differences) >= SHADOW_DIFFERENCES:
                self.beyond += 1
                return
            self.differences[found] = Seen(now, now)
            self._told(found, types.digest)
        seen = self.differences[found]
        seen.count, seen.last_at = seen.count + 1, now


class Decided:
    """Hears the decisions on one request of a task, and has the candidate asked the same. `context`: what it is on."""

    def __init__(
        self,
        task: Task,
        principal: Principal,
        shadow: Shadow | None,
        read: Read,
        policy_set: str,
        heard: Heard,
        people_key: bytes,
    ) -> None:
        """`principal`: the task as it is now. `heard` is told of each decision. `people_key`: under which the record
        has a person.
        """
        self.context = read(task, task.type)
        self._heard = heard
        self._task = task
        self._shadow = shadow
        self._read = read
        self._policy_set = policy_set
        self.principal = principal
        self._people_key = people_key
        self._hidden, self._own_params = task.hidden_params, task.own_params
        self._asked: list[tuple[str, str]] = []
        self._denied: list[tuple[str, str]] = []
        self._policies: set[str] = set()
        self._asked_at = perf_counter()  # policy is asked at once, and again as soon as it has answered

    def __call__(self, action: str, resource: str, decision: Allow | Deny) -> None:
        self._heard(self._task, bool(decision), perf_counter() - self._asked_at)
        self._asked.append((resource, action))
        if not decision and action in self._task.type.ceiling.at(resource):  # else a caller may have made it up
            self._denied.append((resource, action))
        self._policies.update(decision.policies)
        if self._shadow is not None:
            self._shadow.compare(self._task, action, resource, decision, self._read)
        self._asked_at = perf_counter()

    @property
    def policies(self) -> tuple[str, ...]:
        """The ids of all policies that decided."""
        return tuple(sorted(self._policies))

    def record(self, named: Iterable[Grant] | None = None, *, params: bool = False) -> dict[str, Any]:
        """For the audit: the digest of all that was decided on, by which policies, and what of it no other field says;
        and (resource, action) of what the type has and policy denied, if there is anything.

        `named`: grants that another field of the record names; what was asked is left out where it is just these.
        `params`: whether the record may be written when the task's parameters are others by now, or has no beginning,
        and so has them itself.
        """
        read = (self.context.also or (self.context,))[-1].facts  # the newest, on disk or not
        context = self.context if read is self.context.facts else replace(self.context, facts=read)
        inputs = inputs_of(self.principal, context, self._people_key, self._hidden)
        asked = _by_resource(self._asked)
        facts = {
            name: {"value": fact.value, "source": fact.source, "age_seconds": round(fact.age, 3)}
            for name, fact in read.items()
        }
        return {
            "inputs": digest_of({**inputs, "asked": asked}),
            "policies": list(self.policies),
            "policy_set": self._policy_set,
            "facts": facts or None,
            "denied": sorted(set(self._denied)) or None,
            "seen": seen_of(inputs),
            "params": dict(inputs["params"]) if params or self._own_params else None,
            "asked": None if named is not None and asked == _as_asked(named) else asked,
        }


def _as_asked(grants: Iterable[Grant]) -> dict[str, list[str]]:
    return {each.resource: sorted(each.actions) for each in grants}


def _by_resource(asked: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The actions that were asked for at each resource, sorted, each once."""
    found: dict[str, list[str]] = {}
    for resource, action in sorted(set(asked)):
        found.setdefault(resource, []).append(action)
    return found
