"""What stands around the policies of a task type, for whoever has to know it: who must agree, to whom a task may be
handed on, and which facts are read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from sojourn.policy.task_type_tables import ApprovalRule
from sojourn.policy.task_types import TaskType
from sojourn.settings.durations import duration_text


@dataclass(frozen=True, slots=True)
class ApprovalCondition:
    """`count` of the `approvers` must agree, within that time; `when` empty: to each task."""

    approvers: tuple[str, ...]
    count: int
    within_seconds: int
    when: str = ""


@dataclass(frozen=True, slots=True)
class DelegationCondition:
    """A task may be handed on to these, so often, and so far."""

    to: tuple[str, ...]
    max_depth: int
    max_children: int


@dataclass(frozen=True, slots=True)
class FactCondition:
    """A fact that is read. `max_age_seconds` None: it is never too old."""

    name: str
    type: str
    required: bool
    sources: tuple[str, ...]
    max_age_seconds: int | None
    on_deny: str


@dataclass(frozen=True, slots=True)
class LimitCondition:
    """How often a task may do an action."""

    action: str
    uses: int


@dataclass(frozen=True, slots=True)
class Conditions:
    """All of one type. `approval` and `delegation` None: nobody must agree, and to nobody."""

    approval: ApprovalCondition | None
    break_glass: bool
    delegation: DelegationCondition | None
    facts: tuple[FactCondition, ...]
    limits: tuple[LimitCondition, ...] = ()

    def names(self) -> str:
        """In a few words, for a table."""
        approval = "approval when" if self.approval is not None and self.approval.when else "approval"
        words = {approval: self.approval, "break-glass": self.break_glass, "delegation": self.delegation}
        found = [word for word, has in words.items() if has]
        found += [f"facts {' '.join(fact.name for fact in self.facts)}"] if self.facts else []
        found += [f"limits {' '.join(f'{each.action}={each.uses}' for each in self.limits)}"] if self.limits else []
        return ", ".join(found) or "none"

    def lines(self) -> Iterator[str]:
        """In sentences; none if there are no conditions."""
        if self.break_glass:
            yield "it is break-glass: a review is owed before the next one"
        if self.approval is not None:
            who, within = ", ".join(self.approval.approvers), _text(self.approval.within_seconds)
            where = f", where {' '.join(self.approval.when.split())}" if self.approval.when else ""
            yield f"{self.approval.count} of {who} must agree, within {within}{where}"
        if self.delegation is not None:
            to, far = ", ".join(self.delegation.to), self.delegation.max_depth
            yield f"it may be handed on to {to}: {self.delegation.max_children} times, {far} deep"
        for each in self.limits:
            often = "once" if each.uses == 1 else f"{each.uses} times"
            yield f"it may do {each.action} {often}, together with all that it hands on"
        for fact in self.facts:
            age = "" if fact.max_age_seconds is None else f", at most {_text(fact.max_age_seconds)} old"
            needed = ", required" if fact.required else ""
            yield f"it reads fact {fact.name} ({fact.type}{needed}{age}) of {', '.join(fact.sources)}: {fact.on_deny}"


def conditions(kind: TaskType, approval: ApprovalRule | None) -> Conditions:
    """Those of a type. `approval` is the one that is in force, of the type or of its class."""
    delegation = kind.delegation
    return Conditions(
        approval=None
        if approval is None
        else ApprovalCondition(
            approval.approvers, approval.count, int(approval.within.total_seconds()), approval.when or ""
        ),
        break_glass=kind.break_glass,
        delegation=None
        if delegation is None
        else DelegationCondition(delegation.to, delegation.max_depth, delegation.max_children),
        facts=tuple(
            FactCondition(
                name,
                rule.type,
                rule.required,
                rule.sources,
                None if rule.max_age is None else int(rule.max_age.total_seconds()),
                rule.on_deny,
            )
            for name, rule in kind.facts.items()
        ),
        limits=tuple(LimitCondition(action, uses) for action, uses in sorted(kind.limits.items())),
    )


def _text(seconds: int) -> str:
    return duration_text(timedelta(seconds=seconds))
