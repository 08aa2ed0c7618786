"""`sojourn task`: begin, use, end and see tasks."""

import os
from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.options import (
    ActionOption,
    AdminSocketOption,
    Output,
    OutputOption,
    ParamOption,
    ResourceOption,
    SocketOption,
)
from sojourn.cli.output import emit, moment, table
from sojourn.durations import parse_duration
from sojourn.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, help="Begin, use, end and see tasks.")
TypeOption = Annotated[str, typer.Option("--type", help="The task type.")]
TtlOption = Annotated[
    str | None, typer.Option("--ttl", metavar="DURATION", help="End sooner than the type says, such as 30s.")
]
TaskArgument = Annotated[str, typer.Argument(envvar="SOJOURN_TASK_ID", help="The task. Default: SOJOURN_TASK_ID.")]


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(metavar="-- CMD…", help="The command and its arguments.")],
    type_: TypeOption,
    param: ParamOption = None,
    resource: ResourceOption = "",
    action: ActionOption = None,
    ttl: TtlOption = None,
    grace: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", help="Between SIGTERM and SIGKILL, when the task ends first.")
    ] = 5.0,
    socket: SocketOption = None,
) -> None:
    """Run a command inside a task. Its exit status passes through; the task ends with it, and it with the task.

    The command finds the task's ID in SOJOURN_TASK_ID and the agent in SPIFFE_ENDPOINT_SOCKET; `sojourn task token`
    gets tokens there. No token is in its arguments or its environment. Only the command and its descendants may use
    the task.
    """
    from sojourn.cli.taskrun import run_command

    status = remote.public(
        socket,
        lambda client: run_command(
            client,
            command,
            grace,
            type=type_,
            params=remote.pairs(param),
            grants=_grants(resource, action),
            max_seconds=_seconds(ttl),
        ),
    )
    raise typer.Exit(status)


@app.command()
def begin(
    type_: TypeOption,
    param: ParamOption = None,
    resource: ResourceOption = "",
    action: ActionOption = None,
    ttl: TtlOption = None,
    holder_pid: Annotated[
        int | None,
        typer.Option(
            "--holder-pid", help="The process that the task lives with. Default: the one that ran this command."
        ),
    ] = None,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Begin a task that lives as long as a process: by default the shell that ran this command. Prints its ID."""

    async def call(client: Any) -> Any:
        task = await client.begin_task(
            type_,
            params=remote.pairs(param),
            grants=_grants(resource, action),
            max_seconds=_seconds(ttl),
            holder_pid=os.getppid() if holder_pid is None else holder_pid,
        )
        return task.status

    status = remote.public(socket, call)
    emit(output, _status_dict(status), [status.id])


@app.command()
def token(
    task: TaskArgument,
    resource: ResourceOption = "",
    action: ActionOption = None,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Get an access token under a task, and print the token alone."""
    got = remote.public(socket, lambda client: client.get_token(task, resource, tuple(action or ())))
    value = {
        "access_token": got.token,
        "token_type": "Bearer",
        "resource": got.resource,
        "actions": list(got.actions),
        "expires_at": got.expires_at.isoformat().replace("+00:00", "Z"),
        "task_id": task,
    }
    emit(output, value, [got.token])


@app.command()
def complete(
    task: TaskArgument,
    failed: Annotated[bool, typer.Option("--failed", help="The task did not succeed.")] = False,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """End a task of the caller. Every token of it is dead at once."""
    status = remote.public(socket, lambda client: client.complete_task(task, failed=failed))
    emit(output, _status_dict(status), [f"{status.id} {status.state}: {status.reason}"])


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """List tasks (operator)."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(
        admin_socket, "/sojourn.v1.Admin/ListTasks", pb.ListTasksRequest(include_ended=all_), pb.ListTasksResponse
    )
    tasks = [_task_dict(each) for each in answer.tasks]
    rows = [
        [t["id"], t["type"], t["spiffe_id"], t["state"], t["reason"], t["holder_pid"], t["expires_at"]] for t in tasks
    ]
    pretty = table(["TASK", "TYPE", "SPIFFE ID", "STATE", "REASON", "HOLDER", "EXPIRES"], rows)
    emit(output, {"tasks": tasks}, pretty if rows else ["no tasks"])


@app.command()
def show(task: TaskArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Show a task (operator)."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb
    from sojourn._pb.sojourn.v1 import tasks_pb2

    answer = remote.admin(admin_socket, "/sojourn.v1.Admin/GetTask", pb.GetTaskRequest(task_id=task), tasks_pb2.Task)
    _show(answer, output)


@app.command()
def revoke(task: TaskArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """End a task against its holder's will (operator). Every token of it is dead at once."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb
    from sojourn._pb.sojourn.v1 import tasks_pb2

    answer = remote.admin(
        admin_socket, "/sojourn.v1.Admin/RevokeTask", pb.RevokeTaskRequest(task_id=task), tasks_pb2.Task
    )
    _show(answer, output)


def _show(task: Any, output: Output) -> None:
    value = _task_dict(task)
    lines = [f"{name:<14} {_text(each)}" for name, each in value.items() if each not in ("", None, {}, [])]
    emit(output, value, lines)


def _text(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(f"{grant['resource']}: {', '.join(grant['actions'])}" for grant in value)
    if isinstance(value, dict):
        return " ".join(f"{name}={each}" for name, each in value.items())
    return str(value)


def _grants(resource: str, actions: list[str] | None) -> Any:
    from sojourn.tasks.grants import Grant

    if not resource and not actions:
        return None
    if not resource or not actions:
        raise InvalidInput("--resource and --action go together; leave both out for all that the type allows")
    return [Grant.parse(resource, actions)]


def _seconds(text: str | None) -> int:
    if text is None:
        return 0
    try:
        return max(1, int(parse_duration(text).total_seconds()))
    except ValueError as error:
        raise InvalidInput(f"--ttl: {text[:50]!r} {error}") from error


def _status_dict(status: Any) -> dict[str, Any]:
    return {
        "id": status.id,
        "type": status.type,
        "spiffe_id": str(status.spiffe_id),
        "state": status.state,
        "reason": status.reason,
        "grants": [{"resource": grant.resource, "actions": list(grant.actions)} for grant in status.grants],
        "expires_at": status.expires_at.isoformat().replace("+00:00", "Z"),
    }


def _task_dict(task: Any) -> dict[str, Any]:
    return {
        "id": task.id,
        "type": task.type,
        "spiffe_id": task.spiffe_id,
        "state": task.state,
        "reason": task.reason,
        "grants": [{"resource": grant.resource, "actions": list(grant.actions)} for grant in task.grants],
        "params": dict(task.params),
        "created_at": moment(task.created_at),
        "expires_at": moment(task.expires_at),
        "holder_pid": task.holder_pid,
        "tokens_issued": task.tokens_issued,
        "version": task.version,
    }
