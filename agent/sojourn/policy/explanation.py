"""Why policy answers as it does, and what would change the answer.

Nothing here is derived: each change that is named was made, one at a time, and policy was asked again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Any

from sojourn.limits import CHANGES_FOUND, CHANGES_SHOWN, VALUES_TRIED
from sojourn.policy.cedar import OWN, Deny, compiled
from sojourn.policy.cedar_schema import Context, Param, Reading, shown
from sojourn.policy.clause_verdicts import ClauseVerdict, literals, standing
from sojourn.policy.clauses import Clause
from sojourn.policy.params import ParamRule, text_of
from sojourn.policy.questions import ACTIVE, PolicyAnswer, Question, ask
from sojourn.policy.task_type_tables import FactRule
from sojourn.policy.task_types import TaskType
from sojourn.policy.user import User


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What would be answered if one thing were otherwise."""

    what: str
    allowed: bool


@dataclass(frozen=True)
class Explanation:
    """An answer with its reasons. `attributes` are what it was decided on; `standings` are nearest first."""

    type: str
    digest: str
    allowed: bool
    rule: str
    reason: str
    policies: tuple[str, ...]
    attributes: Mapping[str, str]
    standings: tuple[ClauseVerdict, ...]
    changes: tuple[PolicyChange, ...]
    needs_approval: bool = False  # before a task begins that asks for it, as its type says


def explain(kind: TaskType, question: Question, known: Mapping[str, Reading] = MappingProxyType({})) -> Explanation:
    """Answer, and say why. `known`: those of the question's facts that are in force, with their ages."""
    answer = ask(kind, question)
    attributes = {
        **shown(question.principal, sorted(kind.limits), kind.user),
        "action": question.action,
        "resource": question.resource,
        **{f"context.params.{name}": text_of(value) for name, value in answer.context.params.items()},
        **_facts(answer.context, known),
    }
    standings: list[ClauseVerdict] = []
    changes = list(_other_requests(kind, question, answer))
    if answer.rule == "policy":
        every = [*OWN, *kind.policy.clauses]
        principal = question.principal
        standings = [
            standing(kind.policy, clause, principal, question.action, question.resource, answer.context)
            for clause in every
        ]
        changes = [*_other_policies(kind, question, answer, every, standings), *changes]
    return Explanation(
        kind.name,
        kind.digest,
        bool(answer),
        answer.rule,
        answer.decision.reason if isinstance(answer.decision, Deny) else "a policy permits it, and none forbids it",
        answer.decision.policies,
        attributes,
        tuple(sorted(standings, key=lambda each: (len(each.misses), each.effect != "permit"))),
        tuple(changes[:CHANGES_SHOWN]),
        answer.approval,
    )


def _facts(context: Context, known: Mapping[str, Reading]) -> dict[str, str]:
    """What is known of each fact, for people."""
    found = {}
    for name, fact in context.facts.items():
        whose = known.get(name)
        told = f" ({whose.source}, {whose.age:.0f} s old)" if whose is not None else ""
        found[f"context.facts.{name}"] = f"{text_of(fact.value)}{told}"
    return found | {f"context.facts.{name}": f"absent: {why}" for name, why in context.absent.items()}


def _other_policies(
    kind: TaskType, question: Question, answer: PolicyAnswer, every: list[Clause], standings: list[ClauseVerdict]
) -> Iterator[PolicyChange]:
    """What leaving policies out would change: each alone, and all that forbid it together."""

    def without(left_out: set[str]) -> bool:
        left = compiled([clause for clause in every if clause.id not in left_out])
        principal = question.principal
        return bool(kind.policy.ask(left, principal, question.action, question.resource, answer.context))

    for clause in every:
        allowed = without({clause.id})
        if allowed != bool(answer):
            yield PolicyChange(f"without {clause.parsed['effect']} {clause.id}", allowed)
    for effect in ("forbid", "permit"):
        applying = [each.id for each in standings if each.effect == effect and each.applies]
        allowed = without(set(applying)) if len(applying) > 1 else bool(answer)
        if allowed != bool(answer):
            yield PolicyChange(f"without all of {effect} {', '.join(applying)}", allowed)


def _other_requests(kind: TaskType, question: Question, answer: PolicyAnswer) -> Iterator[PolicyChange]:
    """What one other attribute or parameter would change; of many values the first few that do."""
    for name, values in _variants(kind, question):
        found = 0
        for text, other in islice(values, VALUES_TRIED):
            if found == CHANGES_FOUND:
                break
            allowed = bool(ask(kind, other))
            if allowed != bool(answer):
                found += 1
                yield PolicyChange(f"with {name} {text}", allowed)


def _variants(kind: TaskType, question: Question) -> Iterator[tuple[str, Iterator[tuple[str, Question]]]]:
    """Each thing that a request could have otherwise, with values for it, the nearest first."""
    named = literals([*OWN, *kind.policy.clauses])
    workloads = sorted(str(each) for each in kind.allowed_workloads)
    yield (
        "workload",
        ((each, question.of_another(workload=each)) for each in workloads if each != question.principal.workload),
    )
    actions = [each for each in kind.ceiling.at(question.resource) if each != question.action]
    yield "action", ((each, replace(question, action=each)) for each in actions)
    resources = [each for each in kind.ceiling.resources if each != question.resource]
    yield "resource", ((each, replace(question, resource=each)) for each in resources)
    for name, rule in kind.params.items():
        given = question.params.get(name)
        texts = [each for each in _texts(rule, named, given) if each != given]
        yield (
            f"parameter {name}",
            ((repr(each), replace(question, params={**question.params, name: each})) for each in texts),
        )
        if given is not None:
            rest = {other: text for other, text in question.params.items() if other != name}
            yield f"parameter {name}", iter([("left out", replace(question, params=rest))])
    for name, fact in kind.facts.items():
        value = question.facts.get(name)
        yield (
            f"fact {name}",
            ((_shown(each), _with_fact(question, name, each)) for each in _values(fact, named, value) if each != value),
        )
        if value is not None:
            yield f"fact {name}", iter([("absent", _with_fact(question, name, None))])
    for name in ("tokens_issued", "reported_calls"):
        now = getattr(question.principal, name)
        counts = sorted(
            (each for each in _around(named) if each >= 0 and each != now), key=lambda each: abs(each - now)
        )
        yield name, ((str(each), question.of_another(**{name: each})) for each in counts)
    for action, limit in sorted(kind.limits.items()):
        now = question.uses.get(action, 0)
        counts = sorted({0, limit - 1, limit, *_around(named)}, key=lambda each: abs(each - now))  # at once
        yield (
            f"uses of {action}",
            (
                (str(each), question.of_another(uses=tuple({**question.uses, action: each}.items())))
                for each in counts
                if each >= 0 and each != now
            ),
        )
    if question.principal.user is not None:
        yield from _other_people(kind, question, question.principal.user, named)
    if question.principal.state != ACTIVE:
        yield "state", iter([(ACTIVE, question.of_another(state=ACTIVE))])


def _other_people(
    kind: TaskType, question: Question, user: User, named: set[Param]
) -> Iterator[tuple[str, Iterator[tuple[str, Question]]]]:
    """The same person, had they another group, another login, or logged in at another time."""

    def been(**changes: Any) -> Question:
        return question.of_another(user=replace(user, **changes))

    rule, prefix = kind.person, f"{user.issuer}/"
    texts = sorted(each for each in named if isinstance(each, str))
    entities = {name for clause in kind.policy.clauses for name in clause.named("Group")}
    entities |= set(rule.groups if rule is not None else ())
    groups = sorted({name.removeprefix(prefix) for name in entities if name.startswith(prefix)} | {*texts})
    yield (
        "group",
        ((each, been(groups=tuple(sorted({*user.groups, each})))) for each in groups if each not in user.groups),
    )
    yield "no group", iter([(", ".join(user.groups), been(groups=()))] if user.groups else [])
    ways = dict.fromkeys([*(rule.acr if rule is not None else ()), *texts])
    yield "acr", ((each, been(acr=each)) for each in ways if each != user.acr)
    ages = _around(named) | {0}
    if rule is not None and rule.max_auth_age is not None:
        ages |= {int(rule.max_auth_age.total_seconds())}
    yield (
        "auth_age",
        (
            (str(each), been(auth_age=each))
            for each in sorted(ages, key=lambda each: abs(each - user.auth_age))
            if each >= 0 and each != user.auth_age
        ),
    )


def _texts(rule: ParamRule, named: set[Param], given: str | None) -> list[str]:
    """Values worth trying for a parameter: where policies or its rule change."""
    if rule.type == "boolean":
        return ["false", "true"]
    if rule.one_of is not None:
        return [str(each) for each in rule.one_of]
    if rule.type == "string":
        return sorted(each for each in named if isinstance(each, str))
    bounds = {each for each in (rule.min, rule.max) if each is not None}
    try:
        now = int(given or "0")
    except ValueError:
        now = 0
    return [str(each) for each in sorted(_around(named) | bounds, key=lambda each: abs(each - now))]


def _values(rule: FactRule, named: set[Param], now: Param | None) -> list[Param]:
    """Values worth trying for a fact: where policies change."""
    if rule.type == "boolean":
        return [False, True]
    if rule.type == "string":
        return sorted((each for each in named if isinstance(each, str)), key=str)
    near = now if isinstance(now, int) else 0
    counts = _around(named) | {0}
    return [*sorted(counts, key=lambda each: abs(each - near))]


def _with_fact(question: Question, name: str, value: Param | None) -> Question:
    facts = {other: each for other, each in question.facts.items() if other != name}
    return replace(question, facts=facts if value is None else {**facts, name: value})


def _shown(value: Param) -> str:
    return repr(value) if isinstance(value, str) else text_of(value)


def _around(named: set[Param]) -> set[int]:
    return {each + step for each in named if isinstance(each, int) for step in (-1, 0, 1)}
