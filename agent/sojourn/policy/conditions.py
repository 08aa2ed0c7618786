"""What stands around the policies of a task type, for whoever has to know it: who must agree, to whom a task may be
handed on, whom it is for, and which facts are read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from sojourn.policy.task_type_tables import ApprovalRule, PersonRule
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
class ClaimCondition:
    """A claim of the person that policies may read."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class PersonCondition:
    """Whom its tasks are for. `issuers` none: of any; `groups`, `acr` none: whatever they are."""

    need: str
    issuers: tuple[str, ...]
    groups: tuple[str, ...]
    acr: tuple[str, ...]
    max_auth_age_seconds: int | None
    claims: tuple[ClaimCondition, ...]
    several: bool
    max_live: int


@dataclass(frozen=True, slots=True)
class ReviewCondition:
    """It is reviewed so often. `due_at` 0: no agent has said when; else in seconds since the epoch."""

    every_seconds: int
    block_new: bool
    due_at: int = 0
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class Conditions:
    """All of one type. `approval`, `delegation` and `person` None: nobody must agree, to nobody, and for nobody."""

    approval: ApprovalCondition | None
    break_glass: bool
    delegation: DelegationCondition | None
    facts: tuple[FactCondition, ...]
    limits: tuple[LimitCondition, ...] = ()
    person: PersonCondition | None = None
    review: ReviewCondition | None = None

    def names(self) -> str:
        """In a few words, for a table."""
        approval = "approval when" if self.approval is not None and self.approval.when else "approval"
        person = "person" if self.person is None or self.person.need == "required" else "person optional"
        words = {
            approval: self.approval is not None,
            "break-glass": self.break_glass,
            "delegation": self.delegation is not None,
            person: self.person is not None,
        }
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
        if self.person is not None:
            yield _of_people(self.person)
        if self.delegation is not None:
            to, far = ", ".join(self.delegation.to), self.delegation.max_depth
            yield f"it may be handed on to {to}: {self.delegation.max_children} times, {far} deep"
        if self.review is not None:
            yield _of_review(self.review)
        for each in self.limits:
            often = "once" if each.uses == 1 else f"{each.uses} times"
            yield f"it may do {each.action} {often}, together with all that it hands on"
        for fact in self.facts:
            age = "" if fact.max_age_seconds is None else f", at most {_text(fact.max_age_seconds)} old"
            needed = ", required" if fact.required else ""
            yield f"it reads fact {fact.name} ({fact.type}{needed}{age}) of {', '.join(fact.sources)}: {fact.on_deny}"


def conditions(kind: TaskType, approval: ApprovalRule | None, due_at: int = 0, *, overdue: bool = False) -> Conditions:
    """Those of a type. `approval` is the one that is in force, of the type or of its class; `due_at`: when an agent has
    it reviewed.
    """
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
        person=None if kind.person is None else _person(kind.person),
        review=None
        if kind.review is None
        else ReviewCondition(int(kind.review.every.total_seconds()), kind.review.block, due_at, overdue),
    )


def _person(rule: PersonRule) -> PersonCondition:
    return PersonCondition(
        rule.need,
        rule.issuers,
        rule.groups,
        rule.acr,
        None if rule.max_auth_age is None else int(rule.max_auth_age.total_seconds()),
        tuple(ClaimCondition(name, kind) for name, kind in rule.claims.items()),
        rule.several,
        rule.max_live,
    )


def _of_people(person: PersonCondition) -> str:
    """In a sentence."""
    need = "it is for a person" if person.need == "required" else "it may be for a person"
    told = [f"{need} of {' or '.join(person.issuers) if person.issuers else 'any issuer'}"]
    told += [f"in {' or '.join(person.groups)}"] if person.groups else []
    told += [f"logged in by {' or '.join(person.acr)}"] if person.acr else []
    told += [f"at most {_text(person.max_auth_age_seconds)} ago"] if person.max_auth_age_seconds is not None else []
    others = "one process for several at once" if person.several else "one process for one at a time"
    return f"{', '.join(told)}: {others}, and {person.max_live} tasks of theirs at most"


def _of_review(review: ReviewCondition) -> str:
    """In a sentence."""
    often = f"it is reviewed every {_text(review.every_seconds)}"
    if not review.block_new:
        return f"{often}; the review is overdue" if review.overdue else often
    if review.overdue:
        return f"{often}; the review is OVERDUE, and no new task of it begins (review_overdue)"
    return f"{often}, and no new task begins while that is overdue"


def _text(seconds: int) -> str:
    return duration_text(timedelta(seconds=seconds))
