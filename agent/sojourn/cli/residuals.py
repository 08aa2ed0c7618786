"""`sojourn provider residuals`, and of `sojourn task show`: credentials of providers, and those that outlive tasks."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from sojourn.cli import pages, remote
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption

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
    printer = pages.Printer(output, "credentials", pages.PageTable(_LIST).lines, _LIST.none)
    number, more = 0, 0

    def each(found: list[dict[str, Any]]) -> None:
        nonlocal number, more
        shown = found[: limit - number]
        printer.add(shown)
        number, more = number + len(shown), more + len(found) - len(shown)

    _follow(admin_socket, task, each, residual=True)
    printer.end(more=more)
    if output is Output.PRETTY and more:
        print(f"and {more} more")


def external_credentials(admin_socket: str | None, task: str) -> list[dict[str, Any]]:
    """Those of a task that are not gone."""
    found: list[dict[str, Any]] = []
    _follow(admin_socket, task, found.extend)
    return found


def _follow(
    admin_socket: str | None, task: str, each: Callable[[list[dict[str, Any]]], None], *, residual: bool = False
) -> None:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.ListExternalCredentialsRequest(task_id=task, residual=residual)
    remote.admin_pages(admin_socket, request, lambda page: each([told(one) for one in page.credentials]))


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


_NAMES = ("id", "task_id", "provider", "resource", "state", "over_at", "expires_at", "attempts", "fault")
_LIST = pages.PageForm(
    "credentials",
    ("CREDENTIAL", "TASK", "PROVIDER", "RESOURCE", "STATE", "TASK OVER", "EXPIRES", "TRIED", "WHY NOT"),
    lambda each: [each[name] for name in _NAMES],
    "no credential outlives its task",
)
