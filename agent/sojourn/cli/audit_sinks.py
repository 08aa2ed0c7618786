"""`sojourn audit sinks`: where the journal's records go beside the database, and how far each sink is."""

from collections.abc import Sequence
from typing import Any

import typer

from sojourn.cli import remote
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, printable, table


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn audit`."""
    app.command()(sinks)


def sinks(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Print where the journal's records go beside the database: how far each sink is behind, and what it refused."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    value = told(remote.admin(admin_socket, pb.ListAuditSinksRequest()))
    found = value["sinks"]
    rows = [
        [
            *(each[name] for name in ("name", "kind", "format", "seq", "lag_records")),
            f"{each['lag_seconds']:.1f}",
            *(each[name] for name in ("refused", "gap")),
            "yes" if each["required"] else "no",
            each["taken_at"] or "not since the start",
            printable(each["to"]),
        ]
        for each in found
    ]
    titles = [
        "SINK",
        "KIND",
        "FORMAT",
        "HAS UP TO",
        "BEHIND",
        "SECONDS",
        "REFUSED",
        "PRUNED",
        "REQUIRED",
        "LAST TAKEN",
        "TO",
    ]
    lines = table(titles, rows) if rows else ["no sink is configured: see [[audit.sinks]]"]
    emit(output, value, [*lines, *_faults(found)])


def _faults(found: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"{each['name']} takes NOTHING since {each['failing_since']}: {printable(each['fault'])}"
        for each in found
        if each["fault"]
    ]


def sink_lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """What `sojourn status` tells of sinks."""
    lines: list[str] = []
    for each in found:
        behind = f"{each['lag_records']} records behind" if each["lag_records"] else "has all"
        lines.append(f"{'sink':<14} {each['name']}: {behind}")
        if each["fault"]:
            lines.append(f"{'':<14} takes NOTHING since {each['failing_since']}: {printable(each['fault'])}")
        if each["refused"] or each["gap"]:
            lines.append(f"{'':<14} has NOT had {each['refused']} that it refused, {each['gap']} that were pruned")
    return lines


def room_lines(room: dict[str, Any] | None) -> list[str]:
    """What `sojourn status` tells of records that may not be pruned. None: there are no such."""
    if room is None:
        return []
    lines = [f"{'journal room':<14} {room['held']:.0%} of {room['max_bytes'] // 2**20} MiB is held"]
    if room["full"]:
        lines.append(f"{'':<14} FULL: no task begins, no token is given; raise audit.max_bytes, or see the sinks")
    return lines
