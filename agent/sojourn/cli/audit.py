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

SinceOption = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Only later ones: 2026-05-01T08:00:00Z, or 2h for ago.")
]
UntilOption = Annotated[str, typer.Option("--until", metavar="TIME", help="Only earlier ones: a time, or 2h for ago.")]
EventOption = Annotated[list[str] | None, typer.Option("--event", help="Only these events. May be repeated.")]
TaskOption = Annotated[str, typer.Option("--task", metavar="ID", help="Only those in which this task stands.")]
TypeOption = Annotated[str, typer.Option("--type", help="Only those of tasks of this type.")]


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
    event: EventOption = None,
    task: TaskOption = "",
    type_: TypeOption = "",
    since: SinceOption = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Print the last records, oldest first; with --follow each new one too, and with --output json one on each line.

    With --after the next records behind that one: `--after SEQ --lines N` is a page, and the next is behind its last.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    bounded = bool(after or since)
    wanted = pb.AuditFilter(after_seq=after, events=event or (), task_id=task, type=type_)
    wanted.since_ms = bound_ms("--since", since, datetime.now(UTC))
    page = (lines or 0) if after and not follow else 0
    last = 0 if page else lines or (0 if bounded else _LINES)
    request = pb.ReadAuditRequest(filter=wanted, last=last, first=page, follow=follow)
    printer = Printer(output, "records", record_lines)
    next_after = 0

    def each(part: Any) -> None:
        nonlocal next_after
        next_after = part.next_after
        warn_of_unwritten(part.unwritten)
        found = [record_value(record) for record in part.records]
        if not found:
            return
        if output is Output.JSON and follow:
            print("\n".join(map(json_line, found)), flush=True)
        else:
            printer.add(found)

    try:
        remote.admin_stream(admin_socket, request, each)
    except KeyboardInterrupt:
        if not follow:
            raise
    if not follow:
        printer.end(**({"next_after": next_after or None} if page else {}))
    if next_after and output is Output.PRETTY:
        print(f"there are more: go on with --after {next_after}", file=sys.stderr)


def warn_of_unwritten(count: int) -> None:
    """Say of how many records the journal knows nothing yet, if there are any."""
    if count:
        print(f"warning: records that wait for the disk, which takes no writes: {count}", file=sys.stderr)


def moment_ms(option: str, text: str, now: datetime) -> int:
    """Milliseconds since the epoch of a time, or of so long ago. Raise InvalidInput."""
    try:
        when = now - parse_duration(text)
    except (ValueError, OverflowError):
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            when = None
    if when is None or when.tzinfo is None:
        raise InvalidInput(f"{option}: {text[:50]!r} is neither a time such as 2026-05-01T08:00:00Z nor a duration")
    return max(1, int(when.timestamp() * 1000))


def bound_ms(option: str, text: str, now: datetime) -> int:
    """The same of an option that may be left out: 0 then."""
    return moment_ms(option, text, now) if text else 0


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
