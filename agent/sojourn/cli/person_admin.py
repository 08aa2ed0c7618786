"""`sojourn person list`, `show`, `end`: the people whom live tasks are for, and ending what is done for one."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from sojourn.cli import pages, remote
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit
from sojourn.cli.task_admin import OUTCOMES, WHERE, ReasonOption, outcome
from sojourn.cli.watch import INTERVAL, IntervalOption, WatchOption

PersonArgument = Annotated[
    str, typer.Argument(metavar="ISSUER/SUBJECT", help="Who, by the name of their issuer in the configuration.")
]
SessionOption = Annotated[str, typer.Option("--session", metavar="SID", help="This session of theirs alone.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `sojourn person`."""
    app.command("list")(list_)
    app.command()(show)
    app.command()(end)


def list_(
    watch: WatchOption = False,
    interval: IntervalOption = INTERVAL,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """List the people for whom there are live tasks, with how many (operator)."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    def follow(each: Callable[[list[dict[str, Any]]], None]) -> None:
        remote.admin_pages(admin_socket, pb.ListPeopleRequest(), lambda page: each(list(map(_listed, page.people))))

    pages.show(output, _LIST, follow, watch=watch, interval=interval)


def show(person: PersonArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Show somebody with the live tasks that are for them, and whether they are blocked (operator)."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, pb.GetPersonRequest(person=person))
    tasks: list[dict[str, Any]] = []
    request = pb.ListTasksRequest(person=person)
    remote.admin_pages(admin_socket, request, lambda page: tasks.extend(map(outcome, page.tasks)))
    blocked = (
        {"reason": answer.block.reason, "since": told(answer.block)["since"]} if answer.HasField("block") else None
    )
    value = {**_listed(answer), "blocked": blocked}
    lines = [f"{name:<14} {each}" for name, each in value.items() if name != "blocked" and each not in ("", None)]
    lines += [f"{'blocked':<14} since {blocked['since']}: {blocked['reason']}"] if blocked else []
    emit(output, {**value, "live": tasks}, [*lines, *(OUTCOMES.lines(tasks) if tasks else [])])


def end(
    person: PersonArgument,
    session: SessionOption = "",
    reason: ReasonOption = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """End all that is done for somebody, as a logout does (operator): no token of theirs of until now begins a task.

    They may log in again; `sojourn task block --person` keeps them out until `unblock`.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, pb.EndPersonRequest(person=person, session=session, reason=reason))
    ended = [outcome(each) for each in answer.ended]
    said = f"ended what was done for {person}: {len(ended) + answer.left_out} tasks"
    lines = [*(OUTCOMES.lines(ended) if ended else []), *pages.more(answer.left_out, WHERE), said]
    emit(output, {"ended": ended, "left_out": answer.left_out}, lines)


def _listed(person: Any) -> dict[str, Any]:
    value = told(person)
    return {name: value[name] for name in (*_COLUMNS, "auth_time")}


_COLUMNS = ("issuer", "subject", "pseudonym", "sessions", "tasks", "until")
_LIST = pages.PageForm(
    "people",
    ("ISSUER", "SUBJECT", "PSEUDONYM", "SESSIONS", "TASKS", "UNTIL"),
    lambda person: [person[name] for name in _COLUMNS],
    "there is no task for anybody",
)
