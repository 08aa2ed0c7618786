"""`sojourn audit list` and `sojourn audit follow`: the journal searched, and what comes to it."""

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from sojourn.cli import remote
from sojourn.cli.audit import (
    EventOption,
    SinceOption,
    TaskOption,
    TypeOption,
    UntilOption,
    bound_ms,
    record_lines,
    record_value,
    warn_of_unwritten,
)
from sojourn.cli.options import INT64_MAX, AdminSocketOption, Output, OutputOption, option_spiffe_id
from sojourn.cli.output import json_line
from sojourn.cli.pages import Printer
from sojourn.errors import InvalidInput, Unavailable, Unreachable

if TYPE_CHECKING:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

_LIMIT: Final = 100
_AGAIN_SECONDS: Final = 1.0

WorkloadOption = Annotated[
    str, typer.Option("--workload", metavar="SPIFFE_ID", help="Only those that concern this workload.")
]
ByOption = Annotated[
    str,
    typer.Option(
        "--by", metavar="WHO", help="Only those of this operator or caller: a uid, a SPIFFE ID, an address or a source."
    ),
]
PersonOption = Annotated[
    str, typer.Option("--person", help="Only those for this person: ISSUER/SUBJECT, or their pseudonym in records.")
]
DeniedOption = Annotated[bool, typer.Option("--denied", help="Only refusals.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `sojourn audit`."""
    app.command("list")(search)
    app.command()(follow)


def search(
    since: SinceOption = "",
    until: UntilOption = "",
    event: EventOption = None,
    task: TaskOption = "",
    type_: TypeOption = "",
    workload: WorkloadOption = "",
    by: ByOption = "",
    person: PersonOption = "",
    denied: DeniedOption = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many records.")] = _LIMIT,
    page: Annotated[
        str, typer.Option("--page", metavar="TOKEN", help="Go on where the page before ended, which said how.")
    ] = "",
    oldest: Annotated[bool, typer.Option("--oldest", help="Oldest first. Default: newest first.")] = False,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Search the journal. Where several filters are given, a record has to fit all of them.

    With --output json `next_page` is the token of the next page, null if there is none.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    now = datetime.now(UTC)
    wanted = _filter(event, task, type_, workload, by, person, denied=denied)
    wanted.since_ms = bound_ms("--since", since, now)
    wanted.until_ms = bound_ms("--until", until, now)
    request = pb.SearchAuditRequest(filter=wanted, page_token=page, oldest_first=oldest)
    printer = Printer(output, "records", record_lines, "no records")
    left = limit
    while left:
        request.page_size = left
        answer = remote.admin(admin_socket, request)
        warn_of_unwritten(answer.unwritten if left == limit else 0)
        printer.add(list(map(record_value, answer.records)))
        left, request.page_token = left - len(answer.records), answer.next_page_token
        if not answer.next_page_token:
            break
    printer.end(next_page=request.page_token or None)
    if request.page_token and output is Output.PRETTY:
        print(f"there are more: go on with --page {request.page_token}", file=sys.stderr)


def follow(
    since: SinceOption = "",
    since_seq: Annotated[
        int | None,
        typer.Option(
            "--since-seq", metavar="N", min=0, max=INT64_MAX, help="Begin behind this record. Default: with new ones."
        ),
    ] = None,
    event: EventOption = None,
    task: TaskOption = "",
    type_: TypeOption = "",
    workload: WorkloadOption = "",
    by: ByOption = "",
    person: PersonOption = "",
    denied: DeniedOption = False,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Print each record as it comes, until Ctrl-C; with --output json one on each line.

    Over a restart of the agent it goes on behind the last record that it has printed.
    """
    wanted = _filter(event, task, type_, workload, by, person, denied=denied)
    wanted.since_ms = bound_ms("--since", since, datetime.now(UTC))
    if since_seq is not None:
        wanted.after_seq = since_seq
    following = _Following(admin_socket, wanted, from_now=not since and since_seq is None, output=output)
    try:
        while True:
            following.once()
            time.sleep(_AGAIN_SECONDS)
    except KeyboardInterrupt:
        return


def _filter(
    event: list[str] | None, task: str, type_: str, workload: str, by: str, person: str, *, denied: bool
) -> "pb.AuditFilter":
    """What the options say. Raise InvalidInput."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb
    from sojourn.audit.events import EVENTS

    for name in event or ():
        if name not in EVENTS:
            raise InvalidInput(f"--event: there is no event {name[:100]!r}: docs/codes.md lists them")
    if workload:
        workload = option_spiffe_id("--workload", workload)
    return pb.AuditFilter(
        events=event or (), task_id=task, type=type_, workload=workload, by=by, person=person, denied=denied
    )


class _Following:
    """The journal as it comes, over restarts of the agent."""

    def __init__(self, admin_socket: str | None, wanted: "pb.AuditFilter", *, from_now: bool, output: Output) -> None:
        self._admin_socket = admin_socket
        self._wanted = wanted
        self._from_now = from_now
        self._output = output
        self._reached: int | None = None  # the last record that was told, or behind which it began
        self._waiting = False

    def once(self) -> None:
        """Follow until the agent does not answer. Raise what it says the first time, and what no waiting cures."""
        from sojourn._pb.sojourn.v1 import admin_pb2 as pb

        request = pb.ReadAuditRequest(filter=self._wanted, follow=True, from_now=self._from_now)
        if self._reached is not None:
            request.from_now, request.filter.after_seq = False, self._reached
        try:
            remote.admin_stream(self._admin_socket, request, self._each)
        except (Unavailable, Unreachable) as error:
            if self._reached is None:
                raise
            if not self._waiting:
                print(f"waiting: {error.public}", file=sys.stderr, flush=True)
            self._waiting = True

    def _each(self, part: Any) -> None:
        self._waiting = False
        warn_of_unwritten(part.unwritten)
        if part.HasField("begin"):
            self._begin(part.begin)
        found = [record_value(record) for record in part.records]
        if not found:
            return
        lines = map(json_line, found) if self._output is Output.JSON else record_lines(found)
        print("\n".join(lines), flush=True)
        self._reached = found[-1]["seq"]

    def _begin(self, seq: int) -> None:
        if self._reached is not None and seq < self._reached:
            print(
                f"warning: the journal ends at record {seq}, and {self._reached} was seen: the agent has another"
                " database; `sojourn status` says why",
                file=sys.stderr,
                flush=True,
            )
        self._reached = seq
