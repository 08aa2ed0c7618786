"""`sojourn task list`, `show`, `why`, `suspend`, `resume`, `revoke`, `block`: the operator's side of tasks."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli import pages, remote
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption, SocketOption, option_spiffe_id
from sojourn.cli.output import REFUSED, emit, printable, table
from sojourn.cli.residuals import external_credentials, outside_lines, outside_value
from sojourn.cli.task import TaskArgument
from sojourn.cli.watch import INTERVAL, IntervalOption, WatchOption
from sojourn.config.paths import admin_socket as admin_socket_path
from sojourn.config.paths import operates
from sojourn.errors import InvalidInput, SojournError

_COLUMNS = ("id", "type", "spiffe_id", "state", "reason", "refused", "holder_pid", "expires_at", "parent_id")
_HEADINGS = ("TASK", "TYPE", "SPIFFE ID", "STATE", "REASON", "REFUSED", "HOLDER", "EXPIRES", "PARENT")
_BECAME = ("id", "type", "spiffe_id", "state", "reason", "explanation", "version", "created_at", "expires_at")
WHERE = "`sojourn task list --all` has them"
AnyTask = Annotated[str, typer.Argument(help="The task. Or select tasks by the options.")]
TypeFilter = Annotated[str, typer.Option("--type", help="Tasks of this type.")]
IdFilter = Annotated[str, typer.Option("--spiffe-id", help="Tasks of this workload.")]
SelectorFilter = Annotated[
    str, typer.Option("--selector", metavar="TYPE:VALUE", help="Tasks whose holder was attested with this selector.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="For the holder, its services and the audit journal.")]

BlockedOption = Annotated[
    str, typer.Option("--person", metavar="ISSUER/SUBJECT", help="This person, by their issuer's name, or a pseudonym.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `sojourn task`."""
    app.command("list")(list_)
    for command in (show, suspend, resume, revoke, block, unblock, blocks):
        app.command()(command)


def list_(
    all_: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    type_: TypeFilter = "",
    spiffe_id: IdFilter = "",
    person: Annotated[
        str, typer.Option("--person", metavar="ISSUER/SUBJECT", help="Tasks for this person, by their issuer's name.")
    ] = "",
    watch: WatchOption = False,
    interval: IntervalOption = INTERVAL,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """List tasks, the oldest first (operator). Long parameters are cut; `show` has them whole."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    workload = option_spiffe_id("--spiffe-id", spiffe_id) if spiffe_id else ""
    if person and not all(person.partition("/")):
        raise InvalidInput("--person names somebody as ISSUER/SUBJECT, the issuer by its name in the configuration")

    def follow(each: Callable[[list[dict[str, Any]]], None]) -> None:
        request = pb.ListTasksRequest(include_ended=all_, type=type_, spiffe_id=workload, person=person)
        remote.admin_pages(admin_socket, request, lambda page: each([_task_dict(task) for task in page.tasks]))

    pages.show(output, _LIST, follow, watch=watch, interval=interval)


def show(
    task: TaskArgument,
    admin_socket: AdminSocketOption = None,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Show a task: its own to any workload; to operators each, with the credentials of providers that outlive it.

    Who may not connect to the admin socket asks the public one, as a workload. It tells a process of the same workload
    and user what became of a task; to the holder and, of a session, its descendants, it tells all.
    """
    if _is_workload(admin_socket):
        from sojourn._pb.sojourn.v1 import tasks_pb2

        own = _task_dict(remote.workload(socket, tasks_pb2.ShowTaskRequest(task_id=task)))
        emit(output, own, _lines(own))
        return
    found = external_credentials(admin_socket, task)
    outside = outside_value(found)
    try:
        value = _get(admin_socket, task)
    except SojournError as error:
        if error.remote_code != "not_found" or not found:
            raise
        value = _forgotten(found[0])
    emit(output, {**value, **outside}, [*_lines(value), *outside_lines(outside)])


def _is_workload(explicit: str | None) -> bool:
    """Whether whoever asks may not operate this agent. An admin socket that was named and is not there is an error."""
    return not operates(explicit) and (explicit is None or Path(admin_socket_path(explicit)).exists())


def suspend(
    task: AnyTask = "",
    type_: TypeFilter = "",
    spiffe_id: IdFilter = "",
    selector: SelectorFilter = "",
    reason: ReasonOption = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Take tasks' authority away for now (operator). Their tokens are dead for good; their time goes on."""
    _change(admin_socket, output, "SuspendTasks", _selection(task, type_, spiffe_id, selector), reason)


def resume(
    task: AnyTask = "",
    type_: TypeFilter = "",
    spiffe_id: IdFilter = "",
    selector: SelectorFilter = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Give tasks that an operator suspended their authority back: what policy still allows of it (operator)."""
    _change(admin_socket, output, "ResumeTasks", _selection(task, type_, spiffe_id, selector))


def revoke(
    task: AnyTask = "",
    type_: TypeFilter = "",
    spiffe_id: IdFilter = "",
    selector: SelectorFilter = "",
    reason: ReasonOption = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """End tasks against their holders' will (operator). Every token of them is dead at once."""
    _change(admin_socket, output, "RevokeTasks", _selection(task, type_, spiffe_id, selector), reason)


def block(
    type_: TypeFilter = "",
    spiffe_id: IdFilter = "",
    person: BlockedOption = "",
    reason: ReasonOption = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Switch a task type, a workload or a person off: their tasks end, and none begins until `unblock` (operator)."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb
    from sojourn.cli.entry import entries_with

    request = pb.BlockTasksRequest(block=pb.Block(type=type_, spiffe_id=spiffe_id, person=person, reason=reason))
    answer = remote.admin(admin_socket, request)
    ended = [outcome(each) for each in answer.ended]
    said = f"switched off {type_ or spiffe_id or person}; {len(ended) + answer.left_out} tasks ended"
    lines = [*(OUTCOMES.lines(ended) if ended else []), *pages.more(answer.left_out, WHERE), said]
    emit(output, {"ended": ended, "left_out": answer.left_out}, lines)
    if output is Output.PRETTY and spiffe_id and not ended and not entries_with(admin_socket, spiffe_id):
        warning = f"warning: no entry names {spiffe_id} now; it is off for when one does, or a template makes it"
        print(printable(warning), file=sys.stderr)


def unblock(
    type_: TypeFilter = "",
    spiffe_id: IdFilter = "",
    person: BlockedOption = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Let tasks of a type, of a workload or for a person begin again. What was ended stays ended (operator)."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.UnblockTasksRequest(block=pb.Block(type=type_, spiffe_id=spiffe_id, person=person))
    remote.admin(admin_socket, request)
    name = type_ or spiffe_id or person
    said = f"tasks for {name} may begin again" if person else f"{name} may begin tasks again"
    emit(output, {"unblocked": name}, [said])


def blocks(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """List what is switched off (operator)."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, pb.ListBlocksRequest())
    kinds = ("type", "spiffe_id", "person")
    found = [told(each) | {kind: getattr(each, kind) or None for kind in kinds} for each in answer.blocks]
    rows = [[each["type"] or each["spiffe_id"] or each["person"], each["since"], each["reason"]] for each in found]
    pretty = table(["SWITCHED OFF", "SINCE", "REASON"], rows) if rows else ["nothing is switched off"]
    emit(output, {"blocks": found}, pretty)


def _selection(task: str, type_: str, spiffe_id: str, selector: str) -> Any:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    if not (task or type_ or spiffe_id or selector):
        raise InvalidInput("name a task, or select tasks with --type, --spiffe-id or --selector")
    return pb.TaskSelection(task_id=task, type=type_, spiffe_id=spiffe_id, selector=selector)


def _change(admin_socket: str | None, output: Output, method: str, selection: Any, reason: str = "") -> None:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.ChangeTasksRequest(selection=selection, reason=reason)
    answer = remote.admin(admin_socket, request, method)
    told_as = _task_dict if selection.task_id else outcome  # one task is told as itself, several as a list
    found = [{**told_as(each.task), "error": each.error or None} for each in answer.outcomes]
    failed = [f"{each['id']}: {each['error']}" for each in found if each["error"]]
    if selection.task_id and found:
        emit(output, found[0], _lines(found[0]))
    else:
        counts = {"changed": answer.changed, "failed": answer.failed, "left_out": answer.left_out}
        said = [f"{answer.changed} tasks are changed, {answer.failed} are not"] if answer.left_out else []
        lines = [*OUTCOMES.lines(found), *failed, *pages.more(answer.left_out, WHERE), *said]
        emit(output, {"tasks": found, **counts}, lines)
    if answer.failed:
        raise typer.Exit(REFUSED)


def _get(admin_socket: str | None, task: str) -> dict[str, Any]:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.GetTaskRequest(task_id=task)
    return _task_dict(remote.admin(admin_socket, request))


def _forgotten(credential: dict[str, Any]) -> dict[str, Any]:
    """What is known of a task that the agent has forgotten, as it ended long ago or before a restart."""
    return {
        "id": credential["task_id"],
        "type": credential["task_type"],
        "spiffe_id": credential["spiffe_id"],
        "state": "ended",
        "reason": "`sojourn task why` tells more",
    }


def _row(task: dict[str, Any]) -> list[object]:
    return [task[name] or "" if name in {"parent_id", "refused"} else task[name] for name in _COLUMNS]


def _lines(value: dict[str, Any]) -> list[str]:
    return [f"{name:<14} {_text(name, each)}" for name, each in value.items() if each not in ("", None, {}, [])]


def _text(name: str, value: object) -> str:
    if name == "uses" and isinstance(value, list):
        return "; ".join(_use(use) for use in value)
    if name == "refused":
        return f"{value} requests"
    if name == "refusals" and isinstance(value, list):
        return "; ".join(f"{each['count']} {_refused(each)}" for each in value)
    if name == "actors" and isinstance(value, list):
        return " for ".join(value)
    if name in {"passes", "cut"} and isinstance(value, list):
        return " ".join(value)
    if name == "outside" and isinstance(value, list):
        return "; ".join(f"{each['resource']}: {each['provider']} ({each['kind']})" for each in value)
    if isinstance(value, list):
        return "; ".join(f"{grant['resource']}: {', '.join(grant['actions'])}" for grant in value)
    if name == "person" and isinstance(value, dict):
        return f"{value['issuer']}|{value['subject']}, by a token until {value['until']}"
    if isinstance(value, dict):
        return " ".join(f"{name}={each}" for name, each in value.items())
    return str(value)


def _use(use: dict[str, Any]) -> str:
    counted = f", {use['counted']} of {use['limit']} uses" if use.get("limit") else ""
    return f"{use['action']}: {use['tokens']} tokens, {use['calls']} reported calls{counted}"


def _refused(refusal: dict[str, Any]) -> str:
    """Requests of which the target may be one of several, or unknown."""
    asked = " ".join(filter(None, (refusal["action"], refusal["method"], refusal["target"])))
    return f"{refusal['code']} at {refusal['resource']}" + (f" ({asked})" if asked else "")


def _task_dict(task: Any) -> dict[str, Any]:
    return {**told(task, "approval"), "parent_id": task.parent_id or None}


def outcome(task: Any) -> dict[str, Any]:
    """What became of one of many."""
    whole = told(task, "approval")
    return {name: whole[name] for name in _BECAME}


_LIST = pages.PageForm("tasks", _HEADINGS, _row, "no tasks")
OUTCOMES = pages.PageForm(
    "tasks",
    ("TASK", "TYPE", "SPIFFE ID", "STATE", "REASON", "EXPIRES"),
    lambda task: [task[name] for name in ("id", "type", "spiffe_id", "state", "reason", "expires_at")],
    "no task is selected",
)
