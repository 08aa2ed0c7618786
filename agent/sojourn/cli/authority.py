"""`sojourn authority`: the keys that sign."""

import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from sojourn.cli import authority_lines, remote
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption, option_seconds
from sojourn.cli.output import REFUSED, emit, moment
from sojourn.errors import InvalidInput

app = typer.Typer(no_args_is_help=True)


class Kind(StrEnum):
    X509 = "x509"
    JWT = "jwt"
    JWT_RS256 = "jwt-rs256"
    WIT = "wit"


KindArgument = Annotated[Kind, typer.Argument(help="Which keys: x509 (the root), jwt; jwt-rs256, wit if on.")]
IdArgument = Annotated[str, typer.Argument(metavar="AUTHORITY_ID", help="As `sojourn authority show` lists it.")]
OverlapOption = Annotated[
    str,
    typer.Option(
        "--overlap",
        metavar="DURATION",
        help="How long the new key is published before it signs. Streams have it at once; those who poll the bundle"
        " need up to its refresh hint (5m), and clouds that keep JWT keys for longer up to authority.jwt_key_overlap.",
    ),
]


@app.command()
def show(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Show what signs: every key with its state, the chain of X.509-SVIDs with where its keys live, the roots in the
    bundle, and how the upstream authority is.
    """
    value = _shown(admin_socket)
    emit(output, value, authority_lines.shown(value))


@app.command("test")
def try_roots(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Have each root's key sign a text that is of no use to anybody, and say where the key is and how long it took.

    Exit status: 0 all have signed; 1 one has not, and it says why; 3 no agent answers.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    value = told(remote.admin(admin_socket, pb.TestRootsRequest()))
    emit(output, value, authority_lines.tested(value))
    if any(each["fault"] for each in value["roots"]):
        raise typer.Exit(REFUSED)


@app.command()
def prepare(kind: KindArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Make the next key and publish it in the bundle. It does not sign yet."""
    value = _step(admin_socket, kind, "prepare", None)
    emit(output, value, [f"prepared {value['authority_id']}; let it sign with `sojourn authority activate`"])


@app.command()
def activate(
    authority_id: IdArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY
) -> None:
    """Let the prepared key sign. The one before is old then: what it signed stays good, and is replaced in its time."""
    value = _step(admin_socket, _kind_of(admin_socket, authority_id), "activate", authority_id)
    emit(output, value, [f"activated {value['authority_id']}"])


@app.command()
def rotate(
    kind: KindArgument,
    overlap: OverlapOption = "5s",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Prepare a new key, wait until it is known, and let it sign."""
    seconds = option_seconds("--overlap", overlap)
    made = _step(admin_socket, kind, "prepare", None)
    if seconds > 0 and output is Output.PRETTY:
        print(f"prepared {made['authority_id']}; it signs in {seconds:g} s", flush=True)
    time.sleep(max(0.0, seconds))
    value = _step(admin_socket, kind, "activate", made["authority_id"])
    emit(output, value, [f"activated {value['authority_id']}; `sojourn svid rotate --all` replaces what is in use"])


@app.command()
def taint(
    authority_id: IdArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY
) -> None:
    """Mark a key as not to be trusted: all that it signed and that is in use is replaced before this returns.

    If it is a JWT or WIT key that signs, the next one signs at once. A root must be old by then, as must be one of an
    upstream authority: that has to sign by another first.
    """
    value = _step(admin_socket, _kind_of(admin_socket, authority_id), "taint", authority_id)
    emit(output, value, [f"tainted {value['authority_id']}; nothing that it signed is served any more"])


@app.command()
def revoke(
    authority_id: IdArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY
) -> None:
    """Take a tainted key out of the bundle: nothing that it signed verifies any more."""
    value = _step(admin_socket, _kind_of(admin_socket, authority_id), "revoke", authority_id)
    emit(output, value, [f"revoked {value['authority_id']}"])


def _shown(admin_socket: str | None) -> dict[str, Any]:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    return told(remote.admin(admin_socket, pb.GetStatusRequest()).authority)


def _kind_of(admin_socket: str | None, authority_id: str) -> str:
    shown = _shown(admin_socket)
    for key in shown["keys"]:
        if key["authority_id"] == authority_id:
            return str(key["kind"])
    if any(root["authority_id"] == authority_id for root in shown["roots"]):
        return Kind.X509  # of an upstream authority
    raise InvalidInput(f"there is no authority {authority_id[:100]!r}: see `sojourn authority show`")


def _step(admin_socket: str | None, kind: str, step: str, authority_id: str | None) -> dict[str, Any]:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.ChangeAuthorityKeyRequest(kind=str(kind), step=step, authority_id=authority_id)
    key = remote.admin(admin_socket, request)
    return {"kind": key.kind, "authority_id": key.authority_id, "not_after": moment(key.not_after)}
