"""Cases for a narrower task type: those that it has, as it answers them, and one for each thing that it keeps out."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tomlkit

from sojourn.errors import InvalidPolicy
from sojourn.limits import CASES_PER_TYPE
from sojourn.policy import cases
from sojourn.policy.narrowing_edits import Edit
from sojourn.policy.params import ParamRule
from sojourn.policy.task_types import CASES, TaskType


def failing(kind: TaskType, toml: str) -> list[str]:
    """The cases that a type does not answer as its file says, each as a sentence."""
    name = f"{kind.name}{CASES}"
    try:
        outcomes = cases.run(kind, cases.parse(name, toml, kind)) if toml else []
    except InvalidPolicy as error:
        return [str(each) for each in error.faults]
    return [f"{name}: {each.case.name}: {'; '.join(each.differences)}" for each in outcomes if each.differences]


def with_denials(old: TaskType, new: TaskType, toml: str, edits: Iterable[Edit]) -> tuple[str, list[str]]:
    """The text of a file of cases with one more for each edit of which one can be asked, and their names.

    Each is answered as it says by `new`, and otherwise by `old`. What stands in the file stays as it is; to one that
    cannot be read, or has no room, nothing is added.
    """
    if toml and not _can_be_read(new, toml):
        return toml, []
    file = tomlkit.parse(toml).unwrap()
    default = {"default": file["default"]} if "default" in file else {}
    known, added, more = {each["name"] for each in file.get("case", ())}, [], []
    for case in _cases(new, edits, file.get("default", {}).get("params", {})):
        alone = tomlkit.dumps({**default, "case": [case]})
        if case["name"] not in known and not failing(new, alone) and failing(old, alone):
            more.append(tomlkit.dumps({"case": [case]}))
            added.append(str(case["name"]))
    del added[max(0, CASES_PER_TYPE - len(known)) :]
    text = "\n".join([*([toml.rstrip() + "\n"] if toml.strip() else []), *more[: len(added)]])
    return (text, added) if added and _can_be_read(new, text) else (toml, [])


def _can_be_read(kind: TaskType, toml: str) -> bool:
    try:
        cases.parse("", toml, kind)
    except InvalidPolicy:
        return False
    return True


def _cases(new: TaskType, edits: Iterable[Edit], default: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    grant = new.ceiling.grants[0]
    usual = {"resource": grant.resource, "action": grant.actions[0]}
    params = {**_params(new), **default}
    for each in edits:
        if each.case is None:
            continue
        case = {"name": f"kept out: {each.what}", **usual, **each.case}
        if params or "params" in case:
            case["params"] = {**params, **case.get("params", {})}
        yield {**case, "expect": "deny", "rule": each.rule}


def _params(kind: TaskType) -> dict[str, Any]:
    """A value of each parameter that is required, made up: what workloads have said is no matter of a file of cases."""
    return {name: _value(rule) for name, rule in kind.params.items() if rule.required}


def _value(rule: ParamRule) -> str | int | bool:
    """One that the rule takes, if there is no pattern."""
    if rule.one_of is not None:
        return rule.one_of[0]
    if rule.type == "long":
        return rule.min if rule.min is not None else min(0, rule.max or 0)
    return rule.type == "boolean" or "x"
