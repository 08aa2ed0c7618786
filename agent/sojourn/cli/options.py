"""Options that many commands share."""

from enum import StrEnum
from typing import Annotated

import typer

from sojourn.errors import InvalidInput, InvalidSpiffeId
from sojourn.settings.durations import parse_duration

# What the messages of the API hold.
INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1


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


def option_spiffe_id(option: str, text: str) -> str:
    """The SPIFFE ID that was given as an option. Raise InvalidSpiffeId naming the option."""
    from sojourn.spiffe.ids import SpiffeId

    try:
        return str(SpiffeId.parse(text))
    except InvalidSpiffeId as error:
        raise InvalidSpiffeId(f"{option}: {text[:200]!r} is not a SPIFFE ID: {error.public}") from error


def option_seconds(option: str, text: str) -> float:
    """The seconds of a duration that was given as an option. Raise InvalidInput naming the option."""
    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise InvalidInput(f"{option}: {text[:50]!r} {error}") from error
