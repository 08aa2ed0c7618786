"""`sojourn task why`: what the audit journal has of a task."""

from collections import Counter, deque
from typing import Annotated, Any, Final

import typer

from sojourn.cli import remote
from sojourn.cli.audit import record_line, record_lines, record_value, warn_of_unwritten
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit
from sojourn.cli.pages import Printer
from sojourn.cli.task import TaskArgument
from sojourn.errors import InvalidInput
from sojourn.limits import AUDIT_WANTED_TEXT

# A task with more records says how many are left out between these: nobody's tokens hide how a task began, nor
# how it ended.
_FIRST: Final = 100
_LAST: Final = 200


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn task`."""
    app.command()(why)


def why(
    task: TaskArgument,
    all_: Annotated[bool, typer.Option("--all", help="All records, however many.")] = False,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Tell what became of a task and why: what the audit journal has of it, oldest first (operator).

    Of more than 300 records it tells the first 100 and the last 200, and how many were left out in between.
    """
    story = _Whole(output) if all_ else _Ends()
    _read(admin_socket, task, story)
    if not story.any:
        raise InvalidInput(f"the audit journal has nothing of a task {task[:100]!r}")
    story.end(output, task)


def _read(admin_socket: str | None, task: str, story: "_Whole | _Ends") -> None:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    if task and len(task) <= AUDIT_WANTED_TEXT:
        request = pb.ReadAuditRequest(filter=pb.AuditFilter(task_id=task))

        def each(part: Any) -> None:
            warn_of_unwritten(part.unwritten)
            story.add(list(map(record_value, part.records)))

        remote.admin_stream(admin_socket, request, each)


class _Whole:
    """All records, printed as they come."""

    def __init__(self, output: Output) -> None:
        self._printer = Printer(output, "records", record_lines)
        self.any = False

    def add(self, records: list[dict[str, Any]]) -> None:
        self.any = self.any or bool(records)
        self._printer.add(records)

    def end(self, _output: Output, task: str) -> None:
        self._printer.end(task=task, left_out=0, left_out_events={})


class _Ends:
    """The first and the last records, and what was in between, counted by event."""

    def __init__(self) -> None:
        self._first: list[dict[str, Any]] = []
        self._last: deque[dict[str, Any]] = deque()
        self._between: Counter[str] = Counter()

    @property
    def any(self) -> bool:
        return bool(self._first)

    def add(self, records: list[dict[str, Any]]) -> None:
        for each in records:
            if len(self._first) < _FIRST:
                self._first.append(each)
                continue
            self._last.append(each)
            if len(self._last) > _LAST:
                self._between[self._last.popleft()["event"]] += 1

    def end(self, output: Output, task: str) -> None:
        number, events = self._between.total(), dict(sorted(self._between.items()))
        named = ", ".join(f"{event} {count}" for event, count in events.items())
        said = [f"… {number} more were left out here ({named}): --all has them"] if number else []
        value = {
            "task": task,
            "records": [*self._first, *self._last],
            "left_out": number,
            "left_out_events": events,
        }
        emit(output, value, [*map(record_line, self._first), *said, *map(record_line, self._last)])
