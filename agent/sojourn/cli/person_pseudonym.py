"""`sojourn person pseudonym`: what audit records call a person whom tasks are for."""

from typing import Annotated

import typer

from sojourn.cli import remote
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, printable


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn person`."""
    app.command()(pseudonym)


def pseudonym(
    issuer: Annotated[str, typer.Argument(metavar="ISSUER", help="The issuer's `iss`, to the letter.")],
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="The person's `sub` there.")],
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Print what audit records call a person, by which they are found: `sojourn audit tail --output json | grep NAME`.

    It follows from a key of the agent's, keys/people.key, so that nobody else finds who a record is about. Where the
    configuration has records of this issuer's people name them as they are (audit = "plain"), that is printed too.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, pb.NamePersonRequest(issuer=issuer, subject=subject))
    value = {"issuer": issuer, "subject": subject, "pseudonym": answer.pseudonym, "plain": answer.plain or None}
    emit(output, value, [answer.pseudonym, *filter(None, [printable(answer.plain)])])
