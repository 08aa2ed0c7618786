"""Options that many commands share."""

from enum import StrEnum
from typing import Annotated

import typer


class Output(StrEnum):
    """How results are printed."""

    PRETTY = "pretty"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print results.")]
SocketOption = Annotated[
    str | None,
    typer.Option(
        "--socket",
        envvar="SOJOURN_SOCKET",
        help="The agent's public socket. Default: SPIFFE_ENDPOINT_SOCKET, then this user's agent, then the machine's.",
    ),
]
AdminSocketOption = Annotated[
    str | None,
    typer.Option(
        "--admin-socket",
        envvar="SOJOURN_ADMIN_SOCKET",
        help="The agent's admin socket. Default: this user's agent, then the machine's.",
    ),
]
ResourceOption = Annotated[str, typer.Option("--resource", help="The resource, an absolute URI.")]
ActionOption = Annotated[list[str] | None, typer.Option("--action", help="An action there. May be repeated.")]
ParamOption = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter of the task. May be repeated.")
]
