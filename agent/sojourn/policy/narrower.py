"""Whether a set of task types allows nothing that another does not: by what stands in them, and not by trying.

It says no more than it can tell for sure. A policy whose text is another is another policy. So is a rule whose change
takes something in one place and may give it in another, as with a fact that is believed for a shorter time.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from sojourn.errors import InvalidInput
from sojourn.policy.params import ParamRule, text_of
from sojourn.policy.task_type_tables import FactRule
from sojourn.policy.task_types import TaskType

_STRICTNESS: Final = ("narrow", "suspend", "revoke")
_Told = Iterator[str]


def wider(old: Mapping[str, TaskType], new: Mapping[str, TaskType]) -> list[str]:
    """What of `new` may allow something that `old` does not, each as a sentence; nothing: it is no wider."""
    found: list[str] = []
    for name, kind in sorted(new.items()):
        if name not in old:
            found.append(f"{name}: it is a type that there was not")
        else:
            found += [f"{name}: {each}" for each in wider_type(old[name], kind)]
    return found


def wider_type(old: TaskType, new: TaskType) -> list[str]:
    """The same of one type."""
    return [said for compare in OF_FIELDS.values() for said in compare(old, new)]


# --- what there is more of --------------------------------------------------------------------------------------------


def _workloads(old: TaskType, new: TaskType) -> _Told:
    for each in sorted(map(str, new.allowed_workloads - old.allowed_workloads)):
        yield f"allowed_workloads: {each!r} might not begin it"


def _ceiling(old: TaskType, new: TaskType) -> _Told:
    for resource, action in old.ceiling.excess(new.ceiling):
        yield f"ceiling: it had not {action!r} at {resource!r}"
    for grant in new.ceiling.grants:
        for name in ("outside", "tell", "tell_claims"):
            if _said(getattr(old, name).get(grant.resource)) != _said(getattr(new, name).get(grant.resource)):
                yield f"ceiling: what {name} says of {grant.resource!r} is another"


def _said(value: Any) -> Any:
    """Without the lines on which it stands."""
    return (value.provider, value.ask) if hasattr(value, "provider") else value


def _bindings(old: TaskType, new: TaskType) -> _Told:
    for each in sorted(new.bindings - old.bindings):
        yield f"binding: it was not held as {each!r}"


def _high(old: TaskType, new: TaskType) -> _Told:
    for each in sorted((old.high & _actions(new)) - new.high):
        yield f"consequence: {each!r} was of high consequence"


def _bound(old: TaskType, new: TaskType) -> _Told:
    if old.bound and not new.bound:
        yield "bound: its tokens were all bound to their senders"


def _break_glass(old: TaskType, new: TaskType) -> _Told:
    if old.break_glass != new.break_glass:
        yield "break_glass is another"


# --- how much, and for how long ---------------------------------------------------------------------------------------


def _at_most(name: str) -> Callable[[TaskType, TaskType], _Told]:
    """A limit that is not more than it was; None is no limit."""

    def compare(old: TaskType, new: TaskType) -> _Told:
        before: timedelta | int | None = getattr(old, name)
        after: timedelta | int | None = getattr(new, name)
        if before is not None and (after is None or after > before):  # type: ignore[operator]
            yield f"{name}: it was {before}"

    return compare


def _limits(old: TaskType, new: TaskType) -> _Told:
    """Policies may ask whether there is a limit at all (`principal.uses has`), and so it may not just go."""
    for action, most in sorted(old.limits.items()):
        if action in _actions(new) and new.limits.get(action, most + 1) > most:
            yield f"limits: {action!r} might be done {most} times"
        elif action not in new.limits and any("uses" in each.of_principal for each in new.clauses):
            yield f"limits: policies read how often tasks do something, and {action!r} is counted no more"


def _delegation(old: TaskType, new: TaskType) -> _Told:
    before, after = old.delegation, new.delegation
    if after is None:
        return
    if before is None:
        yield "delegation: it was not handed on"
        return
    for each in sorted(set(after.to) - set(before.to)):
        yield f"delegation: it was not handed on to {each!r}"
    for name in ("max_depth", "max_children"):
        if getattr(after, name) > getattr(before, name):
            yield f"delegation: {name} was {getattr(before, name)}"


# --- what it is asked with --------------------------------------------------------------------------------------------


def _params(old: TaskType, new: TaskType) -> _Told:
    for name in sorted(old.params.keys() | new.params.keys()):
        before, after = old.params.get(name), new.params.get(name)
        if before is None:
            yield f"params: it had no {name!r}"
        elif after is None:
            if before.required:
                yield f"params: {name!r} was required"
        else:
            yield from (f"params: {said} of {name!r}" for said in _param(before, after))


def _param(before: ParamRule, after: ParamRule) -> _Told:
    if (before.type, before.in_tokens, before.in_journal) != (after.type, after.in_tokens, after.in_journal):
        yield "type, in_tokens or in_journal is another"
        return
    if before.required and not after.required:
        yield "required is less"
    if after.one_of is not None:
        for value in after.one_of:
            if not _reads(before, text_of(value)):
                yield f"one_of has a new value {value!r}"
        return
    if before.one_of is not None:
        yield "one_of is gone"
    if before.min is not None and (after.min is None or after.min < before.min):
        yield "min is less"
    if before.max is not None and (after.max is None or after.max > before.max):
        yield "max is more"
    if before.pattern not in {None, after.pattern}:
        yield "pattern is another"
    if after.type == "string" and after.longest > before.longest:
        yield "max_length is more"


def _reads(rule: ParamRule, text: str) -> bool:
    try:
        rule.read("it", text)
    except InvalidInput:
        return False
    return True


def _concerning(old: TaskType, new: TaskType) -> _Told:
    """Services compare no less of a request with the task."""
    for action in sorted(_actions(new)):
        for name in sorted(set(old.concerning(action)) - set(new.concerning(action))):
            yield f"bind: {name!r} concerned {action!r}"


def _facts(old: TaskType, new: TaskType) -> _Told:
    for name in sorted(old.facts.keys() | new.facts.keys()):
        before, after = old.facts.get(name), new.facts.get(name)
        if before is None:
            continue  # no policy of before reads it; those that were added forbid
        if after is None:
            if before.required or name in _read(new):
                yield f"facts: {name!r} was read"
        elif not _as_strict(before, after):
            yield f"facts: {name!r} may be read otherwise"


def _read(kind: TaskType) -> set[str]:
    """The facts that policies read, or ask whether they are there: where a type has them not, they never are."""
    return {name for clause in kind.clauses for name in clause.facts}


def _as_strict(before: FactRule, after: FactRule) -> bool:
    """Without a fact a policy may permit or forbid, so that whence and how long it is believed stays as it is."""
    same = (before.type, before.max_age, before.sources) == (after.type, after.max_age, after.sources)
    stricter = _STRICTNESS.index(after.on_deny) >= _STRICTNESS.index(before.on_deny)
    return same and stricter and (after.required or not before.required)


# --- who has a say ----------------------------------------------------------------------------------------------------


def _approval(old: TaskType, new: TaskType) -> _Told:
    before, after = old.approval, new.approval
    if before is None:
        return
    if after is None:
        yield "approval: somebody had to agree"
        return
    for each in sorted(set(after.approvers) - set(before.approvers)):
        yield f"approval: {each!r} might not agree"
    if after.count < before.count:
        yield f"approval: {before.count} had to agree"
    if after.within > before.within:
        yield f"approval: it waited {before.within}"
    if after.when not in {None, before.when}:
        yield "approval: when is another"


def _person(old: TaskType, new: TaskType) -> _Told:
    if old.person != new.person:
        yield "person is another"


def _review(old: TaskType, new: TaskType) -> _Told:
    before, after = old.review, new.review
    if before is not None and before.block and (after is None or not after.block or after.every > before.every):
        yield "review_every: new tasks ended sooner where nobody had reviewed it"


def _policy(old: TaskType, new: TaskType) -> _Told:
    """A policy that forbids may go with the actions that it is about, as nothing else is forbidden by it. So may one
    that fails where it computes: that is a no, too.
    """
    before, after = ({each.text: each for each in kind.policy.clauses} for kind in (old, new))
    for text in sorted(after.keys() - before.keys()):
        if after[text].permits:
            yield f"there was no such policy: {text[:80]!r}"
    for text in sorted(before.keys() - after.keys()):
        gone, of = before[text], before[text].actions
        if (not gone.permits or gone.computes) and (of is None or not of.isdisjoint(_actions(new))):
            yield f"a policy that {'may fail' if gone.permits else 'forbids'} is gone: {text[:80]!r}"


def _actions(kind: TaskType) -> set[str]:
    return {action for grant in kind.ceiling.grants for action in grant.actions}


def _nothing(_old: TaskType, _new: TaskType) -> _Told:
    return iter(())


# Each field of a type: a test holds that none is left out.
OF_FIELDS: Final[Mapping[str, Callable[[TaskType, TaskType], _Told]]] = {
    "name": _nothing,
    "description": _nothing,
    "allowed_workloads": _workloads,
    "max_duration": _at_most("max_duration"),
    "token_ttl": _at_most("token_ttl"),
    "idle_timeout": _at_most("idle_timeout"),
    "max_tokens": _at_most("max_tokens"),
    "max_reported_calls": _at_most("max_reported_calls"),
    "consequence": _nothing,  # follows from `high`
    "bindings": _bindings,
    "params": _params,
    "facts": _facts,
    "delegation": _delegation,
    "approval": _approval,
    "break_glass": _break_glass,
    "bound": _bound,
    "ceiling": _ceiling,
    "policy": _policy,
    "digest": _nothing,
    "lines": _nothing,
    "outside": _nothing,  # with the ceiling
    "bind": _concerning,
    "high": _high,
    "limits": _limits,
    "need": _nothing,  # follows from `approval` and `policy`
    "person": _person,
    "tell": _nothing,  # with the ceiling
    "tell_claims": _nothing,
    "owner": _nothing,  # names people, and lets nobody begin anything
    "sponsor": _nothing,
    "review": _review,
}
