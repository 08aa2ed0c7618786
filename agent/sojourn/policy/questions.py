"""Asking a task type a question as a whole, without a task: for cases, explanations, and a candidate beside.

The rules are those that a real request meets, in its order: workload, binding, person, parameters, ceiling, limits,
facts, policy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sojourn.errors import InvalidInput, SojournError
from sojourn.limits import USES_MAX
from sojourn.policy.cedar import Allow, Deny
from sojourn.policy.cedar_schema import Context, Param, Principal, Reading
from sojourn.policy.person_rules import check_user
from sojourn.policy.rules import NOT_HANDED_ON, may_hold
from sojourn.policy.task_types import TaskType
from sojourn.tasktoken.grants import Authority, Grant

RULES = ("workload", "binding", "person", "params", "ceiling", "limits", "facts", "policy")
ACTIVE = "active"


@dataclass(frozen=True)
class Question:
    """May this task, with these parameters, do `action` at `resource`? `params` are as in a request.

    `principal`: the task that asks; who has it now, if it was handed on. `facts` are what the type's sources say;
    `absent` says why others are not there.
    """

    principal: Principal
    action: str
    resource: str
    params: Mapping[str, str] = field(default_factory=dict)
    binding: str = ""  # '': one that the type allows
    facts: Mapping[str, Param] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def uses(self) -> dict[str, int]:
        """Of actions that the type limits."""
        return dict(self.principal.uses)

    def of_another(self, **changes: Any) -> "Question":
        """The same, asked by a task with other attributes."""
        return replace(self, principal=replace(self.principal, **changes))


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """What was answered, and by which of RULES. `context` is what policies could read.

    `approval`: whether its type would have somebody agree before a task begins that asks for this.
    """

    rule: str
    decision: Allow | Deny
    context: Context = field(default_factory=Context)
    approval: bool = False

    def __bool__(self) -> bool:
        return bool(self.decision)


def ask(kind: TaskType, question: Question, *, limits: bool = True) -> PolicyAnswer:
    """Answer as the agent would, to a task that wants a token for this, or without `limits` to one that may keep it."""
    principal = question.principal
    if not may_hold(kind, principal.workload, principal.depth):
        if principal.depth:
            return PolicyAnswer("workload", Deny(NOT_HANDED_ON))
        return PolicyAnswer("workload", Deny(f"workload {principal.workload[:200]!r} may not begin this type"))
    if question.binding and question.binding not in kind.bindings:
        return PolicyAnswer("binding", Deny(f"a task of this type may not be held as {question.binding}"))
    try:
        check_user(kind, principal.user, login=limits)
    except SojournError as error:
        return PolicyAnswer("person", Deny(error.public))
    try:
        context = _context(kind, question)
    except InvalidInput as error:
        return PolicyAnswer("params", Deny(error.public))
    if question.action not in kind.ceiling.at(question.resource):
        return PolicyAnswer("ceiling", Deny("the ceiling does not have this action at this resource"), context)
    if limits and question.uses.get(question.action, 0) >= kind.limits.get(question.action, USES_MAX + 1):
        return PolicyAnswer(
            "limits", Deny("the task has made all the uses of this action that its type allows"), context
        )
    unknown = sorted(set(question.facts) - set(kind.facts))
    if unknown:
        return PolicyAnswer("facts", Deny(f"task type {kind.name!r} reads no fact {unknown[0][:64]!r}"), context)
    for name, why in context.absent.items():
        if kind.facts[name].required:
            return PolicyAnswer("facts", Deny(f"fact {name!r} is {why}"), context)
    decision = kind.policy.decide(principal, question.action, question.resource, context)
    asked = Authority((Grant(question.resource, (question.action,)),))
    return PolicyAnswer("policy", decision, context, bool(decision) and kind.needs_approval(principal, asked, context))


def _context(kind: TaskType, question: Question) -> Context:
    """What policies may read. Raise InvalidInput if a parameter is wrong."""
    params = kind.read_params(question.params)
    facts: dict[str, Reading] = {}
    absent: dict[str, str] = {}
    for name, rule in kind.facts.items():
        value = question.facts.get(name)
        if value is None:
            absent[name] = question.absent.get(name, "missing")
        elif not rule.fits(value):
            absent[name] = "of another type"
        else:
            facts[name] = Reading(value)
    return Context(params, facts, absent)
