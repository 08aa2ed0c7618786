"""`sojourn entry adopt`: the entries of a host that has another name now."""

from typing import Annotated

import typer

from sojourn.cli import remote
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn entry`."""
    app.command()(adopt)


def adopt(
    from_: Annotated[
        str,
        typer.Option(
            "--from", metavar="NODE", help="Whose: its name or SPIFFE ID. Needed if entries are for several nodes."
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Make the entries of another node this one's, all or nothing: of this host, when it had another name."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, pb.AdoptEntriesRequest(node=from_, dry_run=dry_run))
    value = {
        "dry_run": dry_run,
        "from": answer.from_id,
        "to": answer.node_id,
        "adopted": [{"id": each.id, "spiffe_id": each.spiffe_id} for each in answer.adopted],
        "left": [{"id": each.id, "spiffe_id": each.spiffe_id} for each in answer.left],
    }
    lines = [f"~ {each['spiffe_id']} {each['id']}" for each in value["adopted"]]
    lines += [f"= {each['spiffe_id']} {each['id']}: of the followed folder, change it there" for each in value["left"]]
    done = "would be" if dry_run else "are"
    lines.append(f"{len(value['adopted'])} {done} this node's, {value['to']}, and were of {value['from']}")
    emit(output, value, lines)
