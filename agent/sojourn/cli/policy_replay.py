"""`sojourn policy replay`: what was decided, asked of another set of task types."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from sojourn.cli.audit import bound_ms, moment_ms
from sojourn.cli.audit_check import NOT_REPLAYED
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import REFUSED, emit, moment, table
from sojourn.cli.policy_past import Past

if TYPE_CHECKING:
    from sojourn.policy.replay import Otherwise, Replay, Times
    from sojourn.policy.task_types import TypeSet

_HEADINGS: Final = ("TIMES", "TOKENS", "BEGINS", "TYPE", "SPIFFE ID", "ACTION", "RESOURCE", "BY", "LAST", "RECORD")
_UNKNOWN: Final = {
    "people": "for people, of whom no record says who they are",
    "hidden": "with parameters that are kept out of the journal",
    "limits": "of actions whose uses nobody may have counted then",
    "others": "of resumptions, renewals and the like",
    **NOT_REPLAYED,
}


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn policy`."""
    app.command()(replay)


def replay(
    folder: Annotated[Path, typer.Argument(help="A folder of NAME.toml and NAME.cedar: the set that is tried.")],
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Only decisions since: 2026-05-01T08:00:00Z, or 90d for ago.")
    ] = "90d",
    until: Annotated[
        str, typer.Option("--until", metavar="TIME", help="Only decisions until: a time, or 2h for ago.")
    ] = "",
    types: Annotated[list[str] | None, typer.Option("--type", help="Only of this type. May be repeated.")] = None,
    records: Annotated[
        Path | None,
        typer.Option("--records", metavar="DIR", help="Of an export, and not of the agent. It needs no agent then."),
    ] = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Ask another set of task types what was decided: what it would deny, and what it would newly allow (operator).

    Nothing is changed. Exit status 1 if it would deny something for which a token was issued, or allow what was denied,
    or may allow more by what stands in it, if a record is wrong, or if there is no decision that it could be asked.
    """
    from sojourn.policy.replay import Replay
    from sojourn.policy.task_types import load

    now = datetime.now(UTC)
    tried = load(folder)
    replayed = Replay(tried)
    first_ms, last_ms = moment_ms("--since", since, now), bound_ms("--until", until, now)
    past = Past(frozenset(types or ()), first_ms, last_ms, replayed.take)
    if records is not None:
        past.read_export(records)
    else:
        past.read_agent(admin_socket)
    value = {**tally(past, replayed), "wider": _wider(past, tried, types or ())}
    emit(output, value, _lines(value))
    used = any(each["tokens"] or each["begins"] for each in value["denied"])
    if not value["asked"] or used or value["allowed"] or value["wider"] != [] or value["wrong"]:
        raise typer.Exit(REFUSED)


def tally(past: Past, replayed: "Replay") -> dict[str, Any]:
    """What came of it, as JSON has it."""
    return {
        "asked": replayed.asked,
        "denied": list(_rows(replayed.denied)),
        "allowed": list(_rows(replayed.allowed)),
        "not_asked": {**past.unknown, **replayed.unknown},
        "wrong": past.wrong,
        "denials_not_recorded": past.suppressed,
        "records_since": moment(past.since_ms / 1_000) if past.since_ms else None,
    }


def _wider(past: Past, types: "TypeSet", wanted: Collection[str]) -> list[str] | None:
    """What of the set may allow more than the one that decided last; None: that one is not there."""
    from sojourn.policy.narrower import wider

    last = past.last_types()
    chosen = {name: kind for name, kind in types.items() if not wanted or name in wanted}
    return None if last is None else wider(last, chosen)


def _rows(found: "Mapping[Otherwise, Times]") -> Iterator[dict[str, Any]]:
    """The most frequent first; those for which tokens were issued before all others."""
    for each, times in sorted(found.items(), key=lambda item: (-item[1].used, -item[1].count)):
        said = {**asdict(each), "spiffe_id": each.workload, "policies": list(each.policies)}
        del said["workload"]
        yield {
            **said,
            "count": times.count,
            "tokens": times.tokens,
            "begins": times.begins,
            "first_at": moment(times.first_ms / 1000),
            "last_at": moment(times.last_ms / 1000),
            "last_seq": times.last_seq,
        }


def _lines(value: dict[str, Any]) -> list[str]:
    lines = list(tally_lines(value))
    if value["wider"] is None:
        lines.append("whether it may allow more by what stands in it cannot be told: the set that decided is not there")
    return lines + [f"it may allow more: {each}" for each in value["wider"] or ()]


def tally_lines(value: dict[str, Any]) -> list[str]:
    """A `tally` for people."""
    lines = [f"{value['asked']} decisions asked again"] if value["asked"] else ["there is NO decision to ask again"]
    for name, said in (("denied", "was allowed, and would be DENIED"), ("allowed", "was denied, and would be ALLOWED")):
        lines.append(f"{said}: {'nothing' if not value[name] else len(value[name])}")
        if value[name]:
            lines += table(_HEADINGS, [_cells(each) for each in value[name]])
    lines += [f"not asked: {many} {_UNKNOWN[why]}" for why, many in sorted(value["not_asked"].items()) if many]
    if value["wrong"]:
        lines.append(f"NOT asked: {value['wrong']} whose records are wrong: see `sojourn audit check`")
    if value["records_since"]:
        lines.append(f"NOT asked: what was decided before {value['records_since']}, of which records are gone")
    if value["denials_not_recorded"]:
        lines.append(f"not seen: {value['denials_not_recorded']} denials, of which the journal has the number alone")
    return lines


def _cells(each: dict[str, Any]) -> list[object]:
    by = ", ".join(each["policies"]) or each["rule"]
    cells = [each[name] for name in ("count", "tokens", "begins", "type", "spiffe_id", "action", "resource")]
    return [*cells, by, each["last_at"], each["last_seq"]]
