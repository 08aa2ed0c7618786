"""`sojourn svid rotate`, `revoke` and `revoked`: the operator's side of SVIDs."""

from typing import Annotated, Any

import typer

from sojourn.cli import pages, remote
from sojourn.cli.messages import told
from sojourn.cli.options import INT32_MAX, AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, table
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
    entry: Annotated[
        str, typer.Option("--entry", metavar="ENTRY_ID", help="All that was issued for this entry so far.")
    ] = "",
    spiffe_id: Annotated[str, typer.Option("--spiffe-id", help="All that was issued for this SPIFFE ID so far.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="For the audit journal.")] = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Revoke SVIDs now: they are denied here, named in the CRLs, and the streams that have them end.

    The live tasks that were begun by such an SVID, or had a token given for it, end with it; with --entry or
    --spiffe-id all live tasks of that identity do. The entry stays: delete it, if nobody shall have the identity.
    With [not_on_disk] it is in force, and is lost if the agent ends before there is room: make room, and say it again.
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
    identity = _identity(answer.identity) if answer.HasField("identity") else None
    value = {
        "revoked": _values(answer.revoked),
        "ended_tasks": answer.ended_tasks,
        "identity": identity,
        "unknown": answer.unknown,
    }
    if identity is None:
        lines = [f"SVIDs revoked: {len(answer.revoked)}; tasks ended: {answer.ended_tasks}"]
    else:
        named, what = identity["x509_svids"], "SPIFFE ID" if identity["spiffe_id"] else "entry"
        lines = [
            f"all that this {what} was given so far is revoked; tasks ended: {answer.ended_tasks}",
            f"X.509-SVIDs of it in the CRLs: {named}{_left_out(identity)}",
            _UNKNOWN.format(what)
            if answer.unknown
            else "the identity itself stays: `sojourn entry delete` takes it away",
        ]
    single = _LIST.lines(value["revoked"]) if value["revoked"] else []
    emit(output, value, [*single, *lines])


def revoked(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """List the identities that are revoked up to some time, and the single SVIDs that have not ended yet."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    printer = pages.Printer(output, _LIST.name, pages.PageTable(_LIST).lines)
    identities: list[dict[str, Any]] = []
    single = left_out = 0

    def each(page: Any) -> None:
        nonlocal single, left_out
        if page.identities:  # of the first page
            identities.extend(map(_identity, page.identities))
            if output is Output.PRETTY:
                print("\n".join(_identities_table(identities)))
        single, left_out = single + len(page.revoked), left_out + page.left_out
        printer.add(_values(page.revoked))

    remote.admin_pages(admin_socket, pb.ListRevocationsRequest(), each)
    printer.end(identities=identities, left_out=left_out)
    if output is Output.PRETTY:
        for line in pages.more(left_out, "identities that were revoked earlier"):
            print(line)
        if not identities and not single:
            print("no SVID is revoked")


_UNKNOWN = "no such {} is registered, and nothing of it was found: was that its ID?"


def _values(revoked: Any) -> list[dict[str, Any]]:
    return [{**told(each), "entry_id": each.entry_id or None} for each in revoked]


_LIST = pages.PageForm(
    "revoked",
    ("KIND", "SERIAL OR JTI", "SPIFFE ID", "REVOKED", "ENDS"),
    lambda each: [each[name] for name in ("kind", "id", "spiffe_id", "revoked_at", "expires_at")],
    "no SVID is revoked",
)


def _identity(message: Any) -> dict[str, Any]:
    value = told(message)
    return {**value, "entry_id": value["entry_id"] or None, "spiffe_id": value["spiffe_id"] or None}


def _left_out(identity: dict[str, Any]) -> str:
    left_out = identity["left_out"]
    return f"; no room there for {left_out}, which this agent denies all the same" if left_out else ""


def _identities_table(identities: list[dict[str, Any]]) -> list[str]:
    rows = [
        [
            each["spiffe_id"] or f"entry {each['entry_id']}",
            f"all before {each['revoked_at']}",
            f"{each['x509_svids']} in the CRLs{_left_out(each)}",
            "" if each["written"] else "NOT on disk",
        ]
        for each in identities
    ]
    return list(table(["IDENTITY", "REVOKED", "X.509-SVIDS", ""], rows)) if rows else []
