"""Who may begin a task, and what it may do: result ⊆ request ∩ type ∩ policy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sojourn.errors import ActionOutsideType, InvalidInput, InvalidTarget, PolicyDenied, SojournError
from sojourn.identity.entries import Entry
from sojourn.limits import TASK_MIN_SECONDS
from sojourn.policy.cedar import Allow, Deny
from sojourn.policy.cedar_schema import Context, Param, Principal
from sojourn.policy.params import texts_of
from sojourn.policy.person_rules import check_scope, check_user
from sojourn.policy.task_types import TaskType
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Authority, Grant

NOT_HANDED_ON = "this type is not handed on to its workload, or not so deep"
Heard = Callable[[str, str, Allow | Deny], None]  # action, resource, decision


def entry_for(kind: TaskType, entries: Sequence[Entry], wanted: SpiffeId | None) -> Entry:
    """The first of a caller's entries that may begin `kind`, or the one for `wanted`. Raise PolicyDenied."""
    for entry in entries:
        if entry.spiffe_id in kind.allowed_workloads and wanted in {None, entry.spiffe_id}:
            return entry
    if wanted is None:
        raise PolicyDenied(f"none of the caller's identities may begin task type {kind.name!r}")
    raise PolicyDenied(f"the caller as {str(wanted)!r} may not begin task type {kind.name!r}")


def check_within(kind: TaskType, wanted: Authority) -> None:
    """Raise InvalidTarget or ActionOutsideType unless all that is wanted is in the type."""
    for resource, action in kind.ceiling.excess(wanted):
        if not kind.ceiling.at(resource):
            raise InvalidTarget(f"task type {kind.name!r} does not reach {resource[:200]!r}")
        raise ActionOutsideType(f"task type {kind.name!r} does not have action {action[:100]!r} at {resource!r}")


def check_delegate(kind: TaskType, to: SpiffeId, line: Sequence[SpiffeId]) -> None:
    """Raise PolicyDenied unless a task of this type may be handed on to `to`, after all who stand in the `line`."""
    rule = kind.delegation
    if rule is None:
        raise PolicyDenied(f"tasks of type {kind.name!r} are not handed on: the type has no [delegation]")
    if kind.break_glass:
        raise PolicyDenied("a break-glass task is not handed on: who was approved does it")
    if str(to) not in rule.to:
        raise PolicyDenied(f"tasks of type {kind.name!r} are not handed on to {str(to)!r}")
    if to in line:
        raise PolicyDenied(f"{str(to)!r} has the task already, or had it before: it is not handed in a circle")
    if len(line) > rule.max_depth:
        raise PolicyDenied(f"tasks of type {kind.name!r} are handed on {rule.max_depth} deep at most")


def may_hold(kind: TaskType, workload: str, depth: int) -> bool:
    """Whether a workload may have a task of this type: by beginning it, or at a depth by its being handed on."""
    if not depth:
        return workload in kind.beginners
    return kind.delegation is not None and workload in kind.delegation.to and depth <= kind.delegation.max_depth


def check_life(max_seconds: float) -> None:
    """Raise InvalidInput if a task is wanted that would end at once; 0: nothing was said."""
    if max_seconds and max_seconds < TASK_MIN_SECONDS:
        raise InvalidInput(f"a task lives for at least {TASK_MIN_SECONDS} s")


def check_binding(kind: TaskType, binding: str) -> None:
    """Raise PolicyDenied unless a task of this type may be held so."""
    if binding not in kind.bindings:
        allowed = ", ".join(sorted(kind.bindings))
        raise PolicyDenied(f"a task of type {kind.name!r} may not be held as {binding}: its type has {allowed}")


def authorize(
    kind: TaskType,
    principal: Principal,
    wanted: Authority | None,
    context: Context,
    heard: Heard = lambda *_: None,
) -> Authority:
    """What policy leaves of `wanted`, or of the whole type if that is None; `heard` hears each decision.

    What is named outright and denied refuses the whole (PolicyDenied); of the whole type what is denied is left out.
    """
    if wanted is not None:
        for resource, action in kind.ceiling.excess(wanted):
            heard(action, resource, Deny("the ceiling does not have this action at this resource"))
        check_within(kind, wanted)
    check_scope(kind, principal.user, wanted)

    def refuse(action: str, resource: str, decision: Allow | Deny) -> None:
        heard(action, resource, decision)
        if isinstance(decision, Deny):
            raise _denied(action, resource, decision)

    granted = still_allowed(kind, principal, wanted or kind.ceiling, context, heard if wanted is None else refuse)
    if not granted.grants:
        lacking = next(filter(None, (kind.policy.lacking(each) for each in (context, *context.also))), "")
        raise PolicyDenied(f"policy allows nothing of task type {kind.name!r}{': ' if lacking else ''}{lacking}")
    return granted


def still_allowed(
    kind: TaskType,
    principal: Principal,
    held: Authority,
    context: Context,
    heard: Heard = lambda *_: None,
) -> Authority:
    """What policy leaves now of what a task holds; it may be nothing. `heard` hears each decision, and may raise."""
    left = []
    for grant in held.grants:
        allowed = []
        for action in grant.actions:
            decision = _decide(kind, principal, action, grant.resource, context)
            heard(action, grant.resource, decision)
            if decision:
                allowed.append(action)
        if len(allowed) == len(grant.actions):
            left.append(grant)
        elif allowed:
            left.append(Grant(grant.resource, tuple(allowed)))
    return held if left == [*held.grants] else Authority(tuple(left))


def _decide(kind: TaskType, principal: Principal, action: str, resource: str, context: Context) -> Allow | Deny:
    """Policy's answer, and no whatever it is where the person's own access token does not let it be done."""
    if principal.user is not None and not principal.user.lets(action):
        return Deny("the scope of the person's access token does not have it")
    return kind.policy.decide(principal, action, resource, context)


def left_by(
    kind: TaskType,
    principal: Principal,
    held: Authority,
    context: Context,
    binding: str,
    *,
    asked: bool = True,
) -> tuple[Authority, Mapping[str, Param], str]:
    """What another version of its type leaves of what a task holds, the parameters as it reads them, why not all.

    `asked` False: policy is not, since the task is suspended for what policy reads, and waits for that to change.
    """
    params = context.params
    try:
        if not may_hold(kind, principal.workload, principal.depth):
            raise PolicyDenied("its workload may not begin this type" if not principal.depth else NOT_HANDED_ON)
        check_binding(kind, binding)
        check_user(kind, principal.user, login=False)
        params = kind.read_params(texts_of(params))
    except SojournError as error:
        return Authority(()), params, error.public
    within = held.within(kind.ceiling)
    left = still_allowed(kind, principal, within, _with(context, params)) if asked else within
    if left == held:
        return left, params, ""
    return left, params, "policy denies it" if within == held else "the ceiling does not have it"


def _with(context: Context, params: Mapping[str, Param]) -> Context:
    return replace(context, params=params, also=tuple(replace(each, params=params) for each in context.also))


def check_held(held: Authority, wanted: Authority) -> None:
    """Raise ActionOutsideType unless all that is wanted is held."""
    for resource, action in held.excess(wanted):
        raise ActionOutsideType(f"the task does not have action {action[:100]!r} at {resource[:200]!r}")


def narrow(held: Authority, resource: str, actions: Sequence[str]) -> Grant:
    """The part of a task's authority that a token is asked for; without actions, all at the resource.

    `resource` may be empty if there is only one. Raise InvalidInput, InvalidTarget or ActionOutsideType.
    """
    resource = held.named(resource)
    if not resource:
        raise InvalidInput("the task has several resources: name one")
    there = held.at(resource)
    if not there:
        raise InvalidTarget(f"the task has no grant at {resource[:200]!r}")
    beyond = [action for action in actions if action not in there]
    if beyond:
        raise ActionOutsideType(f"the task does not have action {beyond[0][:100]!r} at {resource!r}")
    return Grant(resource, tuple(sorted(set(actions))) or there)


def _denied(action: str, resource: str, decision: Deny) -> PolicyDenied:
    by = f" (decided by {', '.join(decision.policies)})" if decision.policies else ""
    return PolicyDenied(f"action {action!r} at {resource!r} was denied: {decision.reason}{by}")
