"""`sojourn svid x509` and `jwt`: fetch SVIDs as the caller, as any workload would."""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.options import Output, OutputOption, SocketOption, option_spiffe_id
from sojourn.cli.output import emit, moment, print_json, printable
from sojourn.errors import InvalidInput, InvalidToken, NoIdentity
from sojourn.files import atomic

app = typer.Typer(no_args_is_help=True)


@app.command()
def x509(
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="DIR", help="Write svid.N.pem, svid.N.key (mode 0600) and bundle.N.pem there."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay, and show (and write) each update.")] = False,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Fetch the X.509-SVIDs of the process that runs this command."""

    async def fetch(client: Any) -> None:
        if not watch:
            _show(await client.fetch_x509_svids(), write, output)
            return
        async for context in client.watch_x509_contexts(_tell):
            _show(context, write, output)
            sys.stdout.flush()

    try:
        remote.public(socket, fetch)
    except KeyboardInterrupt:
        if not watch:
            raise
        raise typer.Exit(0) from None


@app.command()
def jwt(
    audience: Annotated[list[str], typer.Option("--audience", help="Who the token is for. May be repeated.")],
    spiffe_id: Annotated[str | None, typer.Option("--spiffe-id", help="Which identity. Default: the first.")] = None,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Fetch a JWT-SVID of the process that runs this command, and print the token alone."""
    from sojourn._pb import workload_pb2 as workload

    if not all(audience):
        raise InvalidInput("audience must be specified")
    wanted = option_spiffe_id("--spiffe-id", spiffe_id) if spiffe_id else ""
    request = workload.JWTSVIDRequest(audience=audience, spiffe_id=wanted)
    answer = remote.workload(socket, request)
    if not answer.svids:
        raise NoIdentity("agent sent no JWT-SVID")
    svid = answer.svids[0]
    value = {
        "spiffe_id": svid.spiffe_id,
        "token": svid.svid,
        "hint": svid.hint,
        "audience": audience,
        "expires_at": moment(_expiry(svid.svid)),
    }
    emit(output, value, [svid.svid])


def _expiry(token: str) -> float:
    """When a token that the agent sent ends, in seconds since the epoch. Raise InvalidToken. Who receives it verifies
    it: here nothing of it is trusted, and reading it so spares the command the libraries that verify.
    """
    try:
        body = token.split(".")[1].encode()
        return float(json.loads(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))["exp"])
    except (IndexError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidToken("agent sent a JWT-SVID that cannot be read", reason_code="malformed") from error


def _tell(error: Exception) -> None:
    typer.echo(f"waiting: {error}", err=True)


def _show(context: Any, folder: Path | None, output: Output) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    svids = []
    for place, svid in enumerate(context.svids):
        bundle = context.bundles.get(svid.spiffe_id.trust_domain, ())
        bundle_pem = b"".join(each.public_bytes(Encoding.PEM) for each in bundle)
        files: dict[str, str] = {}
        if folder is not None:
            files = _write(folder, place, svid, bundle_pem)
        svids.append(
            {
                "spiffe_id": str(svid.spiffe_id),
                "serial": svid.serial,
                "not_before": moment(svid.leaf.not_valid_before_utc),
                "not_after": moment(svid.not_after),
                "hint": svid.hint,
                "dns_names": _dns_names(svid.leaf),
                "x509_svid": svid.chain_pem.decode(),
                "bundle": bundle_pem.decode(),
                "files": files,
            }
        )
    if output is Output.JSON:
        print_json({"svids": svids})
        return
    for each in svids:
        print(each["spiffe_id"])
        for name in ("serial", "not_before", "not_after", "hint"):
            if each[name]:
                print(f"  {name:<11} {each[name]}")
        for name, path in each["files"].items():
            print(f"  {name:<11} {printable(path)}")


def _dns_names(leaf: Any) -> list[str]:
    from cryptography import x509 as certificates

    names = leaf.extensions.get_extension_for_class(certificates.SubjectAlternativeName).value
    return list(names.get_values_for_type(certificates.DNSName))


def _write(folder: Path, place: int, svid: Any, bundle_pem: bytes) -> dict[str, str]:
    """Write one SVID's files, each whole or not at all, the key first."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        files = {
            "key": (folder / f"svid.{place}.key", svid.key_pem, 0o600),
            "svid": (folder / f"svid.{place}.pem", svid.chain_pem, 0o644),
            "bundle": (folder / f"bundle.{place}.pem", bundle_pem, 0o644),
        }
        for path, content, mode in files.values():
            atomic.write(path, content, mode)
    except OSError as error:
        raise InvalidInput(f"cannot write to {str(folder)!r}: {error.strerror}") from error
    return {name: str(path) for name, (path, _, _) in files.items()}
