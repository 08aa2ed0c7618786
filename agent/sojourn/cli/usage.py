"""`sojourn usage`: what tasks were granted against what was used of it, and what stands unused."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sojourn.cli import remote
from sojourn.cli.audit import bound_ms
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption, option_spiffe_id
from sojourn.cli.output import emit, moment, table
from sojourn.errors import InvalidInput

Value = dict[str, Any]
_DAY_SECONDS: Final = 86_400
_COLUMNS: Final = (
    *("type", "digest", "since", "until", "enough", "workload", "resource", "action", "granted", "taken", "called"),
    *("tokens", "calls", "unused_tokens", "denied", "most", "limit", "first", "last", "blind"),
)
_BLIND: Final = {
    "outside": "a provider gives its credentials",
    "no_reports": "no service told of a call in this time",
}
_UNUSED: Final = {
    "workloads": "workloads that began none",
    "delegates": "workloads to which none was handed on",
    "resources": "resources of which no action was used",
    "actions": "actions for which no token was taken",
    "uncalled": "actions with tokens and without a call",
    "bindings": "bindings",
    "policies": "policies that decided nothing",
    "facts": "facts that changed no answer",
}


def usage(
    type_: Annotated[str, typer.Argument(metavar="[TYPE]", help="A task type. Default: all in force.")] = "",
    workload: Annotated[str, typer.Option("--workload", metavar="ID", help="Only what this workload had.")] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="From this day on: a time, or 30d for ago. Default: 90d.")
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Up to this day. Default: today.")] = "",
    from_journal: Annotated[
        bool, typer.Option("--from-journal", help="Count the journal's records again, in the place of the daily sums.")
    ] = False,
    standing: Annotated[
        bool, typer.Option("--standing", help="What could be used at any time, and nobody did: each with its age.")
    ] = False,
    to_csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the actions as CSV into a file, too.")
    ] = None,
    to_ocsf: Annotated[
        Path | None,
        typer.Option(
            "--ocsf", metavar="FILE", help="Write a finding of OCSF for each type and workload into a file, too."
        ),
    ] = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Show what tasks were granted against what was used of it, by task type, workload, resource and action.

    Three grades of evidence, which are never added: granted; taken, by a token or an outside credential; called, as a
    service told. Days are those of UTC. What was not used is evidence from 30 days and 20 tasks on.
    """
    if standing and (type_ or workload or until or from_journal or to_csv or to_ocsf):
        raise InvalidInput("--standing goes with --since alone: it is of all that this agent has")
    now = datetime.now(UTC)
    since_ms = bound_ms("--since", since, now)
    if standing:
        _show_standing(admin_socket, since_ms, now, output)
        return
    until_ms = bound_ms("--until", until, now)
    workload = option_spiffe_id("--workload", workload) if workload else ""
    found = report_of(admin_socket, type_, workload, since_ms, until_ms, from_journal=from_journal)
    if to_csv is not None:
        _write_csv(to_csv, found["types"])
    if to_ocsf is not None:
        _write_ocsf(to_ocsf, found["types"])
    emit(output, found, _lines(found))


def report_of(
    socket: str | None, type_: str, workload: str, since_ms: int, until_ms: int, *, from_journal: bool
) -> Value:
    """The report of a type, or of all, as JSON has it; times are milliseconds since the epoch, 0 the usual ones."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    found: Value = {"time": None, "types": []}

    def each(part: Any) -> None:
        if part.HasField("time"):
            found["time"] = _dated(told(part.time))
        for one in part.types:
            value = _type_value(one)
            if found["types"] and found["types"][-1]["type"] == value["type"]:  # the rest of its actions
                found["types"][-1]["actions"] += value["actions"]
            else:
                found["types"].append(value)

    request = pb.GetUsageRequest(
        type=type_, workload=workload, since_ms=since_ms, until_ms=until_ms, from_journal=from_journal
    )
    remote.admin_stream(socket, request, each)
    return found


def _type_value(message: Any) -> Value:
    value: Value = _dated(told(message))
    for each in (*value["params"], *value["facts"]):
        each["values"] = [json.loads(text) for text in each["values"]]
    return value


def _dated(value: Any) -> Any:
    """Times in milliseconds as `moment`s, under their names without `_ms`."""
    if isinstance(value, list):
        return [_dated(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name.removesuffix("_ms"): moment(each / 1_000) if name.endswith("_ms") else _dated(each)
        for name, each in value.items()
    }


def _write_csv(path: Path, types: Iterable[Value]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(_COLUMNS)
            for each in types:
                rows.writerows([{**each, **action}.get(name) for name in _COLUMNS] for action in each["actions"])
    except OSError as error:
        raise InvalidInput(f"--csv: {str(path)!r} cannot be written: {error.strerror}") from error


def _write_ocsf(path: Path, types: Sequence[Value]) -> None:
    from sojourn.ocsf.usage_findings import findings

    try:
        with path.open("wb") as file:
            file.writelines(line + b"\n" for line in findings(types))
    except OSError as error:
        raise InvalidInput(f"--ocsf: {str(path)!r} cannot be written: {error.strerror}") from error


# --- for people -----------------------------------------------------------------------------------------------------


def _lines(found: Value) -> Iterator[str]:
    time = found["time"]
    origin = "the journal's records" if time["from_journal"] else "daily sums"
    yield f"from {time['since']} to {time['until']}, by {origin}"
    if time["counted_since"] is None:
        yield "nothing was counted yet"
    elif time["counted_since"] > time["since"]:
        yield f"nothing is known of before {time['counted_since']}"
    if time["from_journal"] and (time["journal_since"] or "") > time["since"]:
        yield f"the journal's oldest record is of {time['journal_since']}: what was pruned is not counted"
    if time["others"]:
        yield f"{time['others']} tasks and grants are in no type: their day had too many names"
    if time["behind"]:
        yield "the agent's disk takes no writes: the newest records are not counted"
    if time["unread"]:
        yield f"{time['unread']} records are not as the agent writes them: `sojourn audit verify`"
    for each in found["types"]:
        yield ""
        yield from _type_lines(each)


def _type_lines(use: Value) -> Iterator[str]:
    before = f", and {use['tasks_before']} of it as it was before" if use["tasks_before"] else ""
    yield f"{use['type']}  {use['digest'][:12]}  since {use['since']}: {use['tasks']} tasks{before}"
    if not use["enough"]:
        yield f"  {use['lacking']}"
    if use["tasks"]:
        spreads = (f"{name} {use[name]['max']} ({use[name]['p99']})" for name in _SPREADS)
        yield f"  at most, and 99 of 100: {use['seconds_max']:g} s ({use['seconds_p99']:g}), {', '.join(spreads)}"
    if use["actions"]:
        yield from (f"  {line}" for line in table(_HEADINGS, map(_action_row, use["actions"])))
    for why, resources in _blind(use["actions"]).items():
        yield f"  blind, {_BLIND.get(why, why)}: {', '.join(resources)}"
    for name in ("bindings", "denials", "policies"):
        if counts := {each: number for each, number in use[name].items() if number}:
            yield f"  {name}: {', '.join(f'{each} {number}' for each, number in counts.items())}"
    for name in ("params", "facts"):
        for each in use[name]:
            yield f"  {name.removesuffix('s')} {each['name']}: {_values(each)}"
    for name, said in _UNUSED.items():
        if use["unused"][name]:
            yield f"  not used, {said}: {', '.join(map(_unused, use['unused'][name]))}"


_SPREADS: Final = ("tokens", "calls", "depth", "children")
_HEADINGS: Final = (
    *("WORKLOAD", "RESOURCE", "ACTION", "GRANTED", "TAKEN", "CALLED", "TOKENS", "CALLS", "UNUSED", "DENIED"),
    *("FIRST", "LAST"),
)


def _action_row(each: Value) -> list[object]:
    numbers = [each[name] for name in ("granted", "taken")]
    told_of = [each[name] for name in ("called", "tokens", "calls", "unused_tokens")]
    if each["blind"]:  # nobody tells of calls: a 0 would look like one that was counted
        told_of = ["?", each["tokens"], "?", "?"]
    times = [(each[name] or "never")[:10] for name in ("first", "last")]
    return [each["workload"], each["resource"], each["action"], *numbers, *told_of, each["denied"], *times]


def _blind(actions: Iterable[Value]) -> Mapping[str, list[str]]:
    found: dict[str, dict[str, None]] = {}
    for each in actions:
        if each["blind"]:
            found.setdefault(each["blind"], {})[each["resource"]] = None
    return {why: list(resources) for why, resources in found.items()}


def _values(each: Value) -> str:
    ends = f"{each['min']} to {each['max']}" if each["min"] is not None else ""
    if not each["many"]:
        return ", ".join(json.dumps(value, ensure_ascii=False) for value in each["values"])
    return ends or f"many values, of {each['longest']} characters at most"


def _unused(each: Any) -> str:
    return each if isinstance(each, str) else f"{each['action']} at {each['resource']}"


# --- what stands unused ---------------------------------------------------------------------------------------------


def _show_standing(socket: str | None, since_ms: int, now: datetime, output: Output) -> None:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    found: Value = {"since": None, "counted_since": None, "standing": []}

    def each(part: Any) -> None:
        if part.since_ms:
            found["since"] = moment(part.since_ms / 1_000)
            found["counted_since"] = moment(part.counted_since_ms / 1_000)
        for one in part.standing:
            age = max(0, int(now.timestamp() - one.since_ms / 1_000))
            found["standing"].append({**_dated(told(one)), "age_seconds": age})

    remote.admin_stream(socket, pb.ListStandingRequest(since_ms=since_ms), each)
    emit(output, found, _standing_lines(found))
    if output is Output.PRETTY and found["counted_since"] is None:
        print("nothing was counted yet: how long something stands unused is not known", file=sys.stderr)


def _standing_lines(found: Value) -> Iterator[str]:
    standing = found["standing"]
    yield f"standing privilege = {len(standing)}{', or these:' if standing else ''}"
    if standing:
        rows = (
            [each["kind"], each["name"], each["about"], _age(each["age_seconds"]), each["until"] or "never"]
            for each in standing
        )
        yield from table(["KIND", "NAME", "WHOSE", "UNUSED FOR", "ENDS"], rows)


def _age(seconds: int) -> str:
    days, rest = divmod(seconds, _DAY_SECONDS)
    return f"{days} d" if days else f"{rest // 3_600} h" if rest >= 3_600 else f"{rest // 60} min"
