"""`sojourn provider residuals`, and of `sojourn task show`: credentials of providers, and those that outlive tasks."""

from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, table

TaskOption = Annotated[str, typer.Option("--task", metavar="TASK", help="Of this task alone.")]


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn provider`."""
    app.command()(residuals)


def residuals(
    task: TaskOption = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the oldest first.")] = 1_000,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """List the credentials that outlive their tasks: still to be taken back, or open until they expire."""
    found, more = external_credentials(admin_socket, task, residual=True, limit=limit)
    rows = [
        [
            *(each[name] for name in ("id", "task_id", "provider", "resource", "state", "over_at", "expires_at")),
            each["attempts"],
            each["fault"],
        ]
        for each in found
    ]
    headings = ["CREDENTIAL", "TASK", "PROVIDER", "RESOURCE", "STATE", "TASK OVER", "EXPIRES", "TRIED", "WHY NOT"]
    lines = list(table(headings, rows)) if rows else ["no credential outlives its task"]
    emit(output, {"credentials": found, "more": more}, [*lines, *([f"and {more} more"] if more else [])])


def external_credentials(
    admin_socket: str | None, task: str, *, residual: bool = False, limit: int = 0
) -> tuple[list[dict[str, Any]], int]:
    """Those of a task, or of all, that are not gone; and how many were left out."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.ListExternalCredentialsRequest(task_id=task, residual=residual, limit=limit)
    answer = remote.admin(admin_socket, request)
    return [told(each) for each in answer.credentials], answer.more


def outside_value(credentials: list[dict[str, Any]]) -> dict[str, Any]:
    """What `task show` tells of a task's credentials: each, how many outlive it, and until when one may be good."""
    left = [each for each in credentials if each["over_at"] is not None]
    return {
        "external_credentials": credentials,
        "residual_credentials": len(left),
        "residual_until": max((each["expires_at"] for each in left), default=None),
    }


def outside_lines(value: dict[str, Any]) -> list[str]:
    """The same for people."""
    if not value["external_credentials"]:
        return []
    lines = ["credentials of providers outside", *(f"  {_line(each)}" for each in value["external_credentials"])]
    if value["residual_credentials"]:
        number = value["residual_credentials"]
        lines.append(
            f"RESIDUAL: {number} outlive{'s' if number == 1 else ''} the task, until {value['residual_until']}"
        )
    return lines


def _line(each: dict[str, Any]) -> str:
    fault = f": {each['fault']}" if each["fault"] else ""
    if each["state"] == "ending":
        became = f"being taken back since {each['over_at']}, tried {each['attempts']} times{fault}"
    elif each["state"] == "open":
        became = f"not taken back{fault}"
    else:
        became = {"asking": "the provider is being asked", "held": "held"}.get(each["state"], each["state"])
    return f"{each['id']} {each['provider']} {each['resource']}: {became}; expires {each['expires_at']}"
