"""`sojourn svid rotate`, `revoke` and `revoked`: the operator's side of SVIDs."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from sojourn.cli import listing, remote
from sojourn.cli.messages import told
from sojourn.cli.options import INT32_MAX, AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit
from sojourn.errors import InvalidInput


def add_to(app: typer.Typer) -> None:
    """Add the commands to `sojourn svid`."""
    for command in (rotate, revoke, revoked):
        app.command()(command)


def rotate(
    entry: Annotated[str, typer.Option("--entry", metavar="ENTRY_ID", help="Those of this entry.")] = "",
    pid: Annotated[
        int,
        typer.Option(
            "--pid",
            metavar="PID",
            max=INT32_MAX,
            help="Those of the identities that this process has.",
            show_default=False,
        ),
    ] = 0,
    all_: Annotated[bool, typer.Option("--all", help="Every one in use.")] = False,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Replace SVIDs now and push the new ones to every stream. The old ones stay good until they end."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    if bool(entry) + bool(pid) + all_ != 1:
        raise InvalidInput("give one of --entry, --pid and --all")
    request = pb.RotateSvidsRequest()
    if entry:
        request.entry_id = entry
    elif pid:
        request.pid = pid
    else:
        request.all = True
    answer = remote.admin(admin_socket, request)
    emit(output, {"rotated": answer.rotated}, [f"X.509-SVIDs in use that were replaced: {answer.rotated}"])


def revoke(
    serial: Annotated[
        str, typer.Option("--serial", help="One SVID: the serial number (hex), or the jti of a JWT-SVID.")
    ] = "",
    entry: Annotated[str, typer.Option("--entry", metavar="ENTRY_ID", help="All that was issued for this entry.")] = "",
    spiffe_id: Annotated[str, typer.Option("--spiffe-id", help="All that was issued for this SPIFFE ID.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="For the audit journal.")] = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Revoke SVIDs now: they are denied here, named in the CRLs, and the streams that have them end.

    The live tasks that were begun by such an SVID, or had a token given for it, end with it; with --entry or
    --spiffe-id all live tasks of that identity do. The entry stays: delete it, if nobody shall have the identity.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    if bool(serial) + bool(entry) + bool(spiffe_id) != 1:
        raise InvalidInput("give one of --serial, --entry and --spiffe-id")
    request = pb.RevokeSvidsRequest(reason=reason)
    if serial:
        request.svid_id = serial
    elif entry:
        request.entry_id = entry
    else:
        request.spiffe_id = spiffe_id
    answer = remote.admin(admin_socket, request)
    value = {"revoked": _values(answer.revoked), "ended_tasks": answer.ended_tasks}
    lines = [f"SVIDs revoked: {len(answer.revoked)}; tasks ended: {answer.ended_tasks}"]
    if not serial:
        lines.append("the identity itself stays: `sojourn entry delete` takes it away")
    table = _LIST.lines(value["revoked"]) if value["revoked"] else []
    emit(output, value, [*table, *lines])


def revoked(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """List the SVIDs that are revoked and have not ended yet, the last one first."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    def follow(each: Callable[[list[dict[str, Any]]], None]) -> None:
        remote.admin_pages(admin_socket, pb.ListRevocationsRequest(), lambda page: each(_values(page.revoked)))

    listing.show(output, _LIST, follow)


def _values(revoked: Any) -> list[dict[str, Any]]:
    return [{**told(each), "entry_id": each.entry_id or None} for each in revoked]


_LIST = listing.Form(
    "revoked",
    ("KIND", "SERIAL OR JTI", "SPIFFE ID", "REVOKED", "ENDS"),
    lambda each: [each[name] for name in ("kind", "id", "spiffe_id", "revoked_at", "expires_at")],
    "no SVID is revoked",
)
