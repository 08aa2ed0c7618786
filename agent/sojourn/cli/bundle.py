"""`sojourn bundle`: the trust bundle."""

import json
from enum import StrEnum
from typing import Annotated

import typer

from sojourn.cli import remote
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit

app = typer.Typer(no_args_is_help=True, help="The trust bundle.")


class Format(StrEnum):
    PEM = "pem"
    SPIFFE = "spiffe"


@app.command()
def show(
    format_: Annotated[
        Format, typer.Option("--format", help="PEM certificates, or the SPIFFE bundle document.")
    ] = Format.PEM,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Print this trust domain's bundle."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, "/sojourn.v1.Admin/GetBundle", pb.GetBundleRequest(), pb.GetBundleResponse)
    document = json.loads(answer.spiffe_bundle)
    pretty = answer.pem if format_ is Format.PEM else json.dumps(document, indent=2)
    emit(output, {"trust_domain": answer.trust_domain, "bundle": document, "pem": answer.pem}, pretty.splitlines())
