"""`sojourn audit`: the journal of issues, denials and task transitions."""

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from sojourn.cli import remote
from sojourn.cli.options import INT64_MAX, AdminSocketOption, Output, OutputOption
from sojourn.cli.output import REFUSED, dated, emit, json_line, moment, printable, whole
from sojourn.cli.pages import Printer
from sojourn.errors import InvalidInput
from sojourn.settings.durations import parse_duration

app = typer.Typer(no_args_is_help=True)
_LINES: Final = 20


@app.command()
def tail(
    lines: Annotated[
        int | None,
        typer.Option(
            "--lines",
            "-n",
            min=1,
            max=10_000,
            help="How many records: the last, or with --after the next. Default: 20; all with --after or --since.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with the records that come. Ctrl-C ends it.")
    ] = False,
    after: Annotated[
        int, typer.Option("--after", metavar="SEQ", min=0, max=INT64_MAX, help="Only those behind this record.")
    ] = 0,
    event: Annotated[list[str] | None, typer.Option("--event", help="Only these events. May be repeated.")] = None,
    task: Annotated[str, typer.Option("--task", metavar="ID", help="Only those in which this task stands.")] = "",
    type_: Annotated[str, typer.Option("--type", help="Only those of tasks of this type.")] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Only later ones: 2026-05-01T08:00:00Z, or 2h for ago.")
    ] = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Print the last records, oldest first; with --follow each new one too, and with --output json one on each line.

    With --after the next records behind that one: `--after SEQ --lines N` is a page, and the next is behind its last.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    bounded = bool(after or since)
    wanted = pb.AuditFilter(after_seq=after, events=event or (), task_id=task, type=type_)
    wanted.since_ms = _since(since, datetime.now(UTC)) if since else 0
    page = lines if after and not follow else None
    last = 0 if page else lines or (0 if bounded else _LINES)
    request = pb.ReadAuditRequest(filter=wanted, last=last, follow=follow)
    printer = Printer(output, "records", record_lines)
    room, printed_last = page or 0, 0

    def each(part: Any) -> None:
        nonlocal room, printed_last
        warn_of_unwritten(part.unwritten)
        found = [record_value(record) for record in part.records]
        if page:
            found, rest = found[:room], found[room:]
            room -= len(found)
            printed_last = found[-1]["seq"] if found else printed_last
            if rest:
                printer.add(found)
                raise _PageFull
        if output is Output.JSON and follow:
            print("\n".join(map(json_line, found)), flush=True)
        else:
            printer.add(found)

    try:
        remote.admin_stream(admin_socket, request, each)
    except KeyboardInterrupt:
        if not follow:
            raise
    except _PageFull:
        printer.end(next_after=printed_last)
        if output is Output.PRETTY:
            print(f"there are more: go on with --after {printed_last}", file=sys.stderr)
        return
    if not follow:
        printer.end(**({"next_after": None} if page else {}))


class _PageFull(Exception):
    """There are more records than were asked for."""


def warn_of_unwritten(count: int) -> None:
    """Say of how many records the journal knows nothing yet, if there are any."""
    if count:
        print(f"warning: records that wait for the disk, which takes no writes: {count}", file=sys.stderr)


def _since(text: str, now: datetime) -> int:
    """Milliseconds since the epoch of a time, or of so long ago. Raise InvalidInput."""
    try:
        when = now - parse_duration(text)
    except (ValueError, OverflowError):
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            when = None
    if when is None or when.tzinfo is None:
        raise InvalidInput(f"--since: {text[:50]!r} is neither a time such as 2026-05-01T08:00:00Z nor a duration")
    return max(1, int(when.timestamp() * 1000))


def record_value(record: Any) -> dict[str, Any]:
    """One record, as it is printed."""
    from google.protobuf.json_format import MessageToDict

    return {
        "seq": record.seq,
        "at": moment(record.at_ms / 1000),
        "event": record.event,
        "fields": whole(MessageToDict(record.fields)),
        "digest": record.digest,
    }


def record_line(record: dict[str, Any]) -> str:
    """One record as a line: each field as `name=value`, the value in JSON unless it is one plain word."""
    fields = " ".join(f"{name}={_shown(dated(name, value))}" for name, value in record["fields"].items())
    return printable(f"{record['seq']} {record['at']} {record['event']} {fields}")


def record_lines(records: Sequence[dict[str, Any]]) -> list[str]:
    return list(map(record_line, records))


def _shown(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r'[^\s"{\[]+', value)
    return value if plain else json.dumps(value, ensure_ascii=False)


@app.command()
def verify(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Check the journal's chain of digests, from what was pruned last to its end. Exit status 1 if it is broken."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, pb.VerifyAuditRequest())
    value = {
        "intact": answer.intact,
        "records": answer.records,
        "first_bad_seq": answer.first_bad_seq or None,
        "reason": answer.reason,
        "first_seq": answer.first_seq,
        "unwritten": answer.unwritten,
    }
    warn_of_unwritten(answer.unwritten)
    begins = f", from {answer.first_seq} on: those before were pruned" if answer.first_seq > 1 else ""
    broken = f"broken at {answer.first_bad_seq}: {answer.reason}"
    emit(output, value, [f"intact: {answer.records} records{begins}" if answer.intact else broken])
    if not answer.intact:
        raise typer.Exit(REFUSED)
