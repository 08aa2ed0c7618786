"""What of a task type could go, or be less, by what was used of it.

Each edit takes something away whole, or tightens a number; none changes the text of a policy. So nothing is granted by
one. That nobody used a thing which the files name is counted; what numbers the next task needs is guessed, with room.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from sojourn.limits import LONG_MAX
from sojourn.policy.params import ParamRule
from sojourn.policy.task_types import TaskType
from sojourn.policy.type_files import TypeFiles

ROOM: Final = 2  # times the greatest that was seen: of durations, budgets and numbers the next task may need more
_TASKS_A_VALUE: Final = 5  # before the texts that were seen are said to be all
Usage = Mapping[str, Any]
"""What `sojourn usage --output json` says of a type."""


@dataclass(frozen=True)
class Edit:
    """One change of a type's files. `rule`: the rule by which a request is denied that it keeps out; `about`: what in
    it, for those rules of which a type has several. `of`: the key of what a task used in all. `evidence`: why.

    `case`: what `NAME.test.toml` says of a question that it keeps out, beside what all cases say; None: nothing.
    """

    rule: str
    about: tuple[str, ...]
    what: str
    evidence: str
    make: Callable[[TypeFiles], None]
    case: Mapping[str, Any] | None = None
    of: str = ""


def edits_of(kind: TaskType, use: Usage, *, tighten: bool = False) -> list[Edit]:
    """All that there are, in an order in which each can be made after those before it.

    Without `tighten` those that take away what the files name, and nobody used; with it also those that say of what
    they leave open, or of a number, that it be no more than was seen.
    """
    parts = [*_policies(kind, use), *_workloads(kind, use), *_actions(kind, use), *_delegates(kind, use)]
    if tighten or "binding" in kind.lines:
        parts += _bindings(kind, use)
    if tighten:
        parts += [*_delegation(kind, use), *_amounts(kind, use), *_limits(kind, use), *_params(kind, use)]
    return parts


# --- what nobody used -------------------------------------------------------------------------------------------------


def _of(use: Usage) -> str:
    return f"of {use['tasks']} tasks since {use['since']}"


def _policies(kind: TaskType, use: Usage) -> Iterator[Edit]:
    permits = [clause.id for clause in kind.policy.clauses if clause.permits]
    unused = [each for each in permits if each in use["unused"]["policies"]]
    if len(unused) < len(permits):  # else nothing would be left
        for each in unused:
            said = f"it allowed nothing {_of(use)}"
            yield Edit("policy", (each,), f"without policy {each!r}", said, _no_policy(each))


def _workloads(kind: TaskType, use: Usage) -> Iterator[Edit]:
    unused = use["unused"]["workloads"]
    if len(unused) < len(kind.allowed_workloads):
        for each in unused:
            what, said = f"allowed_workloads without {each}", f"it began none {_of(use)}"
            yield Edit("workload", (each,), what, said, _without(("allowed_workloads",), each), {"workload": each})


def _actions(kind: TaskType, use: Usage) -> Iterator[Edit]:
    unused = [(each["resource"], each["action"]) for each in use["unused"]["actions"]]
    if len(unused) < sum(len(grant.actions) for grant in kind.ceiling.grants):
        for resource, action in unused:
            what, said = f"ceiling without {action} at {resource}", f"no token was taken for it {_of(use)}"
            case = {"resource": resource, "action": action}
            yield Edit("ceiling", (resource, action), what, said, _no_action(resource, action), case)


def _delegates(kind: TaskType, use: Usage) -> Iterator[Edit]:
    rule, unused = kind.delegation, use["unused"]["delegates"]
    if rule is None:
        return
    if len(unused) == len(rule.to):
        what, said = "without [delegation]", f"none was handed on {_of(use)}"
        yield Edit("workload", tuple(unused), what, said, lambda files: files.drop(("delegation",)), of="delegation")
        return
    for each in unused:
        what, said = f"delegation.to without {each}", f"none was handed on to it {_of(use)}"
        yield Edit("workload", (each,), what, said, _without(("delegation", "to"), each), of="delegation")


def _bindings(kind: TaskType, use: Usage) -> Iterator[Edit]:
    unused = sorted(set(use["unused"]["bindings"]) & kind.bindings)
    left = sorted(kind.bindings - set(unused))
    if left and unused:
        said = f"none was held as {', '.join(unused)} {_of(use)}"
        case = {"binding": unused[0]}
        yield Edit("binding", (), f"binding = {left}", said, _put(("binding",), left), case, "binding")


# --- how much was used ------------------------------------------------------------------------------------------------


def _delegation(kind: TaskType, use: Usage) -> Iterator[Edit]:
    rule = kind.delegation
    if rule is None or len(use["unused"]["delegates"]) == len(rule.to):
        return
    depth, children = use["depth"]["max"], use["children"]["max"]
    for key, by, most, less, seen in (
        ("max_depth", "workload", rule.max_depth, depth, depth),
        ("max_children", "children", rule.max_children, children * ROOM, children),
    ):
        if 0 < less < most:
            said = f"the most was {seen} {_of(use)}; it might be {most}"
            yield Edit(by, (), f"delegation.{key} = {less}", said, _put(("delegation", key), less), of=key)


def _amounts(kind: TaskType, use: Usage) -> Iterator[Edit]:
    may = int(kind.max_duration.total_seconds())
    longest = max(ceil(use["seconds_max"] * ROOM), int(kind.token_ttl.total_seconds()))
    if use["seconds_max"] and longest < may:
        what, said = f'max_duration = "{longest}s"', f"the longest took {use['seconds_max']:g} s {_of(use)}, of {may} s"
        yield Edit("duration", (), what, said, _put(("max_duration",), f"{longest}s"), of="max_duration")
    for key, most, seen in (
        ("max_tokens", kind.max_tokens, use["tokens"]["max"]),
        ("max_reported_calls", kind.max_reported_calls, use["calls"]["max"]),
    ):
        if seen and (most is None or seen * ROOM < most):
            said = f"the most was {seen} {_of(use)}; it might be {'any number' if most is None else most}"
            yield Edit("budget", (), f"{key} = {seen * ROOM}", said, _put((key,), seen * ROOM), of=key)


def _limits(kind: TaskType, use: Usage) -> Iterator[Edit]:
    for action, most in sorted(kind.limits.items()):
        seen = max((each["most"] or 0 for each in use["actions"] if each["action"] == action), default=0)
        if 0 < seen * ROOM < most:
            what, said = f"limits: {action} = {seen * ROOM}", f"a task did it {seen} times at the most {_of(use)}"
            yield Edit("limits", (action,), what, said, _put(("limits", action), seen * ROOM))


def _params(kind: TaskType, use: Usage) -> Iterator[Edit]:
    for seen in use["params"]:
        name, rule = seen["name"], kind.params.get(seen["name"])
        if rule is None or not rule.in_journal or not seen["number"]:
            continue
        rules, gone = _tighter(rule, seen)
        if rules:
            what = f"params.{name}: {', '.join(f'{key} = {value}' for key, value in rules.items())}"
            said = f"seen {seen['number']} times {_of(use)}: {_seen(seen)}"
            yield Edit("params", (name,), what, said, _put_param(name, gone, rules), _outside(name, rules))


def _tighter(rule: ParamRule, seen: Usage) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What may be said of a parameter by the values that it had, and what goes for that."""
    if rule.one_of is not None:
        left = [each for each in rule.one_of if each in seen["values"]]
        return ({"one_of": left} if not seen["many"] and 0 < len(left) < len(rule.one_of) else {}), ()
    if rule.type == "long" and seen["min"] is not None:
        return _bounds(rule, seen["min"], seen["max"]), ()
    values = seen["values"]
    if rule.type == "string" and _are_readable(values) and seen["number"] >= _TASKS_A_VALUE * len(values):
        return {"one_of": values}, ("pattern", "max_length")
    return {}, ()


def _are_readable(values: Sequence[Any]) -> bool:
    """Whether there are any, and a person sees what each is: what workloads have said comes into a file by that."""
    return bool(values) and all(isinstance(each, str) and each.isprintable() for each in values)


def _bounds(rule: ParamRule, least: int, greatest: int) -> dict[str, Any]:
    """With room beyond the least and the greatest that were seen, away from 0 and towards it."""
    low = least // ROOM if least > 0 else least * ROOM
    low, high = max(low, -LONG_MAX), min(greatest * ROOM, LONG_MAX) if greatest > 0 else -(-greatest // ROOM)
    rules = {}
    if rule.min is None or low > rule.min:
        rules["min"] = low
    if rule.max is None or high < rule.max:
        rules["max"] = high
    return rules


def _outside(name: str, rules: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A number that is kept out; of texts that there may have been none can be told."""
    value = rules["max"] + 1 if "max" in rules else rules["min"] - 1 if "min" in rules else None
    return None if value is None else {"params": {name: value}}


def _seen(seen: Usage) -> str:
    if seen["min"] is not None:
        return f"{seen['min']} to {seen['max']}"
    return ", ".join(map(str, seen["values"]))


# --- changes of files -------------------------------------------------------------------------------------------------


def _without(path: tuple[str, ...], value: str) -> Callable[[TypeFiles], None]:
    return lambda files: files.take_out(path, value)


def _no_policy(name: str) -> Callable[[TypeFiles], None]:
    return lambda files: files.take_policy(name)


def _no_action(resource: str, action: str) -> Callable[[TypeFiles], None]:
    return lambda files: files.take_action(resource, action)


def _put(path: tuple[str, ...], value: Any) -> Callable[[TypeFiles], None]:
    return lambda files: files.put(path, value)


def _put_param(name: str, gone: tuple[str, ...], rules: Mapping[str, Any]) -> Callable[[TypeFiles], None]:
    return lambda files: files.put_param(name, gone, **rules)
