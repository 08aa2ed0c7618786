"""Evidence of what is reviewed, as JSON has it and for people."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sojourn.cli.output import moment, printable, table

Value = dict[str, Any]
GRADES: Final = ("granted", "taken", "called", "tokens", "calls", "denied")
_LISTS: Final = {
    "allowed_workloads": "may be begun by",
    "ceiling": "ceiling",
    "workloads": "workload, began, was handed on",
    "began": "type, began, was handed on",
    "may_begin": "types that it may have",
    "types": "types that name it",
    "resources": "resources",
    "entries": "entries",
}
_PLAIN: Final = ("provider", "workload", "resource", "svids", "outliving", "max_duration_seconds", "type_digest")


def evidence_value(text: str) -> Value:
    """Evidence of its canonical JSON, with times as `moment`s."""
    value: Value = _dated(json.loads(text))
    return value


def _dated(value: Any) -> Any:
    if isinstance(value, list):
        return [_dated(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name.removesuffix("_ms"): moment(each / 1_000)
        if name.endswith("_ms") and name != "longest_ms"
        else _dated(each)
        for name, each in value.items()
    }


def called(evidence: Mapping[str, Any]) -> Any:
    """How many tasks services told calls of; `?` where none of the resources is one whose service tells."""
    resources = {each["resource"] for each in evidence["actions"]["rows"]}
    return "?" if resources and resources <= evidence["blind"].keys() else evidence["called"]


def evidence_lines(evidence: Value) -> Iterator[str]:
    """For people."""
    yield f"from {evidence['since']} to {evidence['until']}"
    if evidence["counted_since"] is None:
        yield "nothing was counted yet"
    elif evidence["counted_since"] > evidence["since"]:
        yield f"nothing is known of before {evidence['counted_since']}"
    if evidence.get("lacking"):
        yield evidence["lacking"]
    if not evidence["used"]:
        yield "NOT USED in this time: to keep it needs a reason"
    numbers = [] if evidence["tasks"] is None else [f"tasks {evidence['tasks']}"]
    numbers += [f"{name} {called(evidence) if name == 'called' else evidence[name]}" for name in GRADES]
    yield f"{', '.join(numbers)}; last use {evidence['last'] or 'none'}"
    for name in _PLAIN:
        if evidence.get(name) is not None:
            yield f"{name.replace('_', ' ')}: {printable(str(evidence[name]))}"
    for name, said in _LISTS.items():
        if name in evidence:
            yield from _list_lines(said, evidence[name])
    if evidence["actions"]["rows"]:
        headings = ["TYPE", "WORKLOAD", "RESOURCE", "ACTION", *(name.upper() for name in GRADES), "LAST"]
        yield from table(headings, (_action_row(each, evidence["blind"]) for each in evidence["actions"]["rows"]))
        yield from _left_out(evidence["actions"])
    for resource, why in evidence["blind"].items():
        yield f"blind, nobody tells of calls ({why}): {printable(resource)}"
    for name, each in evidence.get("unused", {}).items():
        yield from _list_lines(f"not used, {name}", each)
    for name, number in evidence.get("denials", {}).items():
        yield f"denied, {name}: {number}"


def _action_row(each: Value, blind: Mapping[str, str]) -> list[object]:
    unknown = {"called", "calls"} if each["resource"] in blind else set()
    grades = ["?" if name in unknown else each[name] for name in GRADES]
    return [
        *(each[name] for name in ("type", "workload", "resource", "action")),
        *grades,
        (each["last"] or "never")[:10],
    ]


def _list_lines(said: str, found: Value) -> Iterator[str]:
    for each in found["rows"]:
        yield f"{said}: {printable(_text(each))}"
    yield from _left_out(found)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {_text(each)}" for name, each in value.items() if each not in (None, "", 0, []))
    return " ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _left_out(found: Value) -> Iterator[str]:
    if found["left_out"]:
        yield f"{found['left_out']} more were left out"
