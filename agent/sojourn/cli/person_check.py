"""`sojourn person check`: why a person's token is taken from a workload, or not."""

from enum import StrEnum
from typing import Annotated

import typer

from sojourn.cli import steps
from sojourn.cli.given_files import read_given
from sojourn.cli.options import AdminSocketOption, Output, OutputOption, option_spiffe_id
from sojourn.errors import InvalidInput
from sojourn.limits import TOKEN_MAX_BYTES

_PREFIX = "urn:ietf:params:oauth:token-type:"


class TokenType(StrEnum):
    """What a token is taken as."""

    ID_TOKEN = "id_token"  # noqa: S105  # a name
    ACCESS_TOKEN = "access_token"  # noqa: S105  # a name
    ID_JAG = "id-jag"


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn person`."""
    app.command()(check)


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The issuer's name in the configuration, [people.NAME].")],
    token_file: Annotated[
        str, typer.Option("--token-file", metavar="FILE", help="A file with the token, or - for standard input.")
    ],
    spiffe_id: Annotated[str, typer.Option("--spiffe-id", help="The workload that would bring it.")],
    token_type: Annotated[
        TokenType | None, typer.Option("--token-type", help="What it is taken as. Default: what the token says.")
    ] = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Try a person's token for a workload step by step, and say which step fails and what to set there.

    No task begins, and the token is neither kept nor shown. Exit status 1 if a step fails.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.CheckPersonRequest(
        issuer=name,
        token=_token(token_file),
        token_type="" if token_type is None else f"{_PREFIX}{token_type}",
        spiffe_id=option_spiffe_id("--spiffe-id", spiffe_id),
    )
    steps.show(admin_socket, request, {"issuer": name}, name, output)


def _token(file: str) -> str:
    try:
        return read_given(file, TOKEN_MAX_BYTES + 2).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise InvalidInput("the file has characters that no token has") from error
