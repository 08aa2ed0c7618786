"""`sojourn review`: reviews that are owed of break-glass tasks."""

from typing import Annotated, Any, Final

import typer

from sojourn.cli import remote
from sojourn.cli.audit import record_lines, record_value, warn_of_unwritten
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, table
from sojourn.cli.pages import Printer
from sojourn.errors import InvalidInput
from sojourn.limits import AUDIT_WANTED_TEXT

app = typer.Typer(no_args_is_help=True)
_DONE: Final = frozenset(
    {"approval_decided", "break_glass_begun", "token_used", "request_refused", "refusals_counted"}
    | {"task_used", "task_ended", "review_done"}
)


@app.command("list")
def list_(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """List the reviews that are owed. No task of such a type begins until its review is done."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, pb.ListReviewsRequest())
    found = [review_value(each) for each in answer.reviews]
    rows = [
        [each["task"], each["type"], each["spiffe_id"], each["uid"], each["since"], "yes" if each["live"] else "no"]
        for each in found
    ]
    headings = ["TASK", "TYPE", "WORKLOAD", "UID", "SINCE", "STILL LIVE"]
    emit(output, {"reviews": found}, table(headings, rows) if rows else ["no review is owed"])


@app.command()
def show(
    task: Annotated[str, typer.Argument(help="The break-glass task.")],
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Show what a break-glass task was begun for, each request that was made with it, and what services refused it.

    It is what the audit journal has; `sojourn task why TASK` has the rest.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    printer, found = Printer(output, "records", record_lines), 0

    def each(part: Any) -> None:
        nonlocal found
        warn_of_unwritten(part.unwritten)
        found += len(part.records)
        printer.add([record_value(record) for record in part.records])

    if task and len(task) <= AUDIT_WANTED_TEXT:
        request = pb.ReadAuditRequest(filter=pb.AuditFilter(task_id=task, events=sorted(_DONE)))
        remote.admin_stream(admin_socket, request, each)
    if not found:
        raise InvalidInput(f"the audit journal has nothing that was done in a task {task[:100]!r}")
    printer.end(task=task)


@app.command()
def done(
    task: Annotated[str, typer.Argument(help="The break-glass task.")],
    finding: Annotated[str, typer.Option("--finding", help="What was found. For the audit journal.")],
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Say what the review of a break-glass task found. `sojourn review show TASK` shows what was done in it."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.CompleteReviewRequest(task_id=task, finding=finding)
    remote.admin(admin_socket, request)
    emit(output, {"task": task, "finding": finding}, [f"the review of {task} is done"])


def review_value(message: Any) -> dict[str, Any]:
    return {**told(message, task="task_id"), "login_uid": None if message.login_uid < 0 else message.login_uid}
