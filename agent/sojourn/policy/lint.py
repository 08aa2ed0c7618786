"""What is legal in a task type, but most likely not what its author wants."""

import re

from sojourn.errors import Fault, InvalidInput
from sojourn.policy import person_lint
from sojourn.policy.asked_user import some_user
from sojourn.policy.cedar import OWN
from sojourn.policy.cedar_schema import Context, Param, Reading, some_task
from sojourn.policy.clauses import Clause
from sojourn.policy.params import ParamRule
from sojourn.policy.task_types import TaskType
from sojourn.spiffe.ids import SpiffeId, TrustDomain

_ANY: dict[str, Param] = {"string": "", "long": 0, "boolean": False}
_NUMBER = re.compile(r"[0-9]+")
_OVER = ("suspended", "completed", "revoked", "expired", "cascaded")


def warnings(kind: TaskType) -> list[Fault]:
    """What to look at again, by file and line."""
    found = [
        Fault(f"{kind.name}.cedar", clause.line, text) for clause in kind.policy.clauses for text in _of(kind, clause)
    ]
    read = {name for clause in kind.clauses for name in clause.facts}
    for name in sorted(set(kind.facts) - read):
        line = kind.lines.get(f"facts.{name}", kind.lines.get("facts", 0))
        declared = "required" if kind.facts[name].required else "declared"
        found.append(Fault(f"{kind.name}.toml", line, f"fact {name!r} is {declared}, and no policy reads it"))
    found += person_lint.warnings(kind, kind.clauses)
    if kind.break_glass and kind.consequence != "high":
        text = 'break_glass without consequence = "high": what is done is counted, and no request is recorded'
        found.append(Fault(f"{kind.name}.toml", kind.lines.get("break_glass", 0), text))
    compared = {name for grant in kind.ceiling.grants for action in grant.actions for name in kind.concerning(action)}
    for name in sorted(name for name, rule in kind.params.items() if rule.in_tokens and name not in compared):
        line = kind.lines.get("bind", 0)
        text = f"[bind] has parameter {name!r} concern no action, so that no service compares it: say in_tokens = false"
        found.append(Fault(f"{kind.name}.toml", line, text))
    if _approval_is_left_out(kind):
        text = (
            "approval is not asked for where a parameter is left out: make it required, or have when ask for that too,"
            " as if context.params has NAME then … else true"
        )
        line = kind.lines.get("approval.when", kind.lines.get("approval", 0))
        found.append(Fault(f"{kind.name}.toml", line, text))
    permits = [clause for clause in kind.policy.clauses if clause.permits]
    for grant in kind.ceiling.grants:
        for action in grant.actions:
            if not any(clause.can_match(action, grant.resource) and _reachable(kind, clause) for clause in permits):
                text = f"no policy can permit action {action!r} at {grant.resource!r}, which is in the ceiling"
                found.append(Fault(f"{kind.name}.toml", kind.lines.get("ceiling", 0), text))
    return sorted(found, key=lambda fault: (fault.file, fault.line))


def faults(kind: TaskType, trust_domain: TrustDomain | None) -> list[Fault]:
    """What must not be: a permit without a live task, and workloads outside of the trust domain, if one is given."""
    found = [] if trust_domain is None else strangers(kind, trust_domain)
    if not forbidden_when_over(kind):
        found.append(Fault(f"{kind.name}.cedar", 0, "something is not forbidden although the task is over"))
    return found


def strangers(kind: TaskType, trust_domain: TrustDomain) -> list[Fault]:
    """The workloads that an agent of this trust domain gives no identity, so that they begin and accept nothing."""
    named = {
        "allowed_workloads": kind.allowed_workloads,
        "delegation.to": frozenset(map(SpiffeId.parse, kind.delegation.to if kind.delegation is not None else ())),
    }
    return [
        Fault(
            f"{kind.name}.toml",
            kind.lines.get(key, 0),
            f"{key}: {str(workload)!r} is not in trust domain {trust_domain.name!r}",
        )
        for key, workloads in named.items()
        for workload in sorted(workloads, key=str)
        if workload.trust_domain != trust_domain
    ]


def forbidden_when_over(kind: TaskType) -> bool:
    """Whether our own forbid stands before everything that the type has: asked, for each state that is not active."""
    workload = str(min(kind.allowed_workloads, key=str))
    params = {name: _ANY[rule.type] for name, rule in kind.params.items() if rule.required}
    for state in _OVER:
        facts = {name: Reading(_ANY[rule.type]) for name, rule in kind.facts.items() if rule.required}
        context = Context(params, facts)
        principal = some_task(kind.name, workload, user=some_user(kind.person), state=state)
        for grant in kind.ceiling.grants:
            for action in grant.actions:
                if OWN[0].id not in kind.policy.decide(principal, action, grant.resource, context).policies:
                    return False
    return True


def _of(kind: TaskType, clause: Clause) -> list[str]:
    found = []
    if not _reachable(kind, clause):
        found.append(
            f"policy {clause.id!r} can never apply: its principal is neither this type nor a workload that may begin it"
        )
    beyond = sorted((clause.resources or frozenset()) - set(kind.ceiling.resources))
    found += [f"policy {clause.id!r} is about resource {each!r}, which is not in the ceiling" for each in beyond]
    open_parts = [part for part, named in (("action", clause.actions), ("resource", clause.resources)) if named is None]
    for name, text in sorted(clause.compared_texts):
        rule = kind.params.get(name)
        if rule is not None and rule.type == "string" and (other := _looks_like_it(rule, name, text)):
            found.append(
                f"policy {clause.id!r} compares the text {name!r} with {text!r}, and is passed by {other!r}, which a"
                " service may read as the same number: make it a long, or give it a pattern or one_of"
            )
    if kind.consequence == "high" and clause.permits and open_parts:
        found.append(f"policy {clause.id!r} permits any {' and any '.join(open_parts)}, in a type of high consequence")
    return found


def _approval_is_left_out(kind: TaskType) -> bool:
    """Whether the condition of an approval reads a parameter that need not be there, and does not hold without."""
    if kind.need is None or all(kind.params[name].required for name in kind.need.clause.params & set(kind.params)):
        return False
    principal = some_task(kind.name, str(min(kind.allowed_workloads, key=str)), user=some_user(kind.person))
    params = {name: _ANY[rule.type] for name, rule in kind.params.items() if rule.required}
    facts = {name: Reading(_ANY[rule.type]) for name, rule in kind.facts.items() if rule.required}
    return not kind.need.of(principal, kind.ceiling, Context(params, facts))


def _looks_like_it(rule: ParamRule, name: str, text: str) -> str:
    """Another text that a parameter may be, and that who reads numbers takes for the same as this one; '': none."""
    for other in (f"0{text}", f" {text}", f"+{text}", f"{text}.0") if _NUMBER.fullmatch(text) else ():
        try:
            rule.read(name, other)
        except InvalidInput:
            continue
        return other
    return ""


def _reachable(kind: TaskType, clause: Clause) -> bool:
    """Whether a task of this type can be what the scope asks for."""
    named = clause.principals
    delegates = kind.delegation.to if kind.delegation is not None else ()
    return named is None or any(
        each == ("TaskType", kind.name)
        or (each[0] == "Workload" and each[1] in {*map(str, kind.allowed_workloads), *delegates})
        for each in named
    )
