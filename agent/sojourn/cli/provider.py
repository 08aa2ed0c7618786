"""`sojourn provider`: the token endpoints outside that tasks have credentials of."""

from typing import Annotated, Any

import typer

from sojourn.cli import remote, steps
from sojourn.cli.messages import told
from sojourn.cli.options import ActionOption, AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, table
from sojourn.errors import NotFound

app = typer.Typer(no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its name in the configuration, [providers.NAME].")]
_ENDS = {"revoke": "revoked", "deny": "denied", "none": "left to expire"}


@app.command("list")
def list_(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """List the providers of the configuration, and how each fares."""
    found = _providers(admin_socket)
    rows = [
        [
            each["name"],
            each["kind"],
            each["recall"],
            each["circuit"],
            f"{each['exchanges']} ({each['failures']})",
            each["held"],
            each["residual"],
            " ".join(each["task_types"]) or "-",
        ]
        for each in found
    ]
    headings = ["NAME", "KIND", "RECALL", "CIRCUIT", "EXCHANGES (FAILED)", "HELD", "RESIDUAL", "TASK TYPES"]
    emit(output, {"providers": found}, table(headings, rows) if rows else ["the configuration names no provider"])


@app.command()
def show(name: NameArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Show one provider: what becomes of its credentials when a task ends, and how it fares."""
    found = _named(admin_socket, name)
    emit(output, found, _lines(found))


@app.command()
def check(
    name: NameArgument,
    spiffe_id: Annotated[
        str, typer.Option("--spiffe-id", help="For whom to exchange. Default: for nobody, the exchange is skipped.")
    ] = "",
    task_type: Annotated[
        str, typer.Option("--type", help="The task type. Default: the one that names the provider, if there is one.")
    ] = "",
    resource: Annotated[
        str, typer.Option("--resource", help="The resource. Default: the one that the type has at the provider.")
    ] = "",
    action: ActionOption = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Try a provider step by step, and say which step fails and what to set there. Exit status 1 if one does.

    With --spiffe-id a credential is obtained and taken back at once. Nothing of it is shown.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    _named(admin_socket, name)
    request = pb.CheckProviderRequest(
        name=name, spiffe_id=spiffe_id, task_type=task_type, resource=resource, actions=action or []
    )
    steps.show(admin_socket, request, {"provider": name}, name, output)


def _named(admin_socket: str | None, name: str) -> dict[str, Any]:
    """Raise NotFound, with the names that there are."""
    known = {each["name"]: each for each in _providers(admin_socket)}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise NotFound(f"the agent's configuration has no [providers.{name[:64]}]; there are: {there}")
    return known[name]


def _providers(admin_socket: str | None) -> list[dict[str, Any]]:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, pb.ListProvidersRequest())
    return [told(each) for each in answer.providers]


def _lines(value: dict[str, Any]) -> list[str]:
    ends = _ENDS.get(value["recall"], value["recall"])
    offline = " (services that do not ask the provider take them until they expire)" if value["offline"] else ""
    until = f", asked again at {value['circuit_until']}" if value["circuit"] == "open" else ""
    lines = {
        "provider": value["name"],
        "kind": value["kind"],
        "task types": ", ".join(value["task_types"]) or "none names it",
        "at the end": f"credentials are {ends}{offline}",
        "circuit": f"{value['circuit']}{until}",
        "fault": value["fault"],
        "exchanges": f"{value['exchanges']} since the agent started, {value['failures']} of them failed",
        "held": f"{value['held']} credentials of live tasks",
        "residual": f"{value['residual']} credentials that outlive their tasks",
    }
    return [f"{name:<10} {text}" for name, text in lines.items() if text]
