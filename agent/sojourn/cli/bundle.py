"""`sojourn bundle`: this trust domain's bundle, and those of foreign ones."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, table
from sojourn.errors import InvalidBundle, InvalidInput
from sojourn.limits import ADMIN_MESSAGE_MAX_BYTES

app = typer.Typer(no_args_is_help=True)


DomainArgument = Annotated[str, typer.Argument(metavar="TRUST_DOMAIN", help="A foreign trust domain's name.")]


class Mode(StrEnum):
    """What becomes of entries that federate with a trust domain whose bundle goes."""

    RESTRICT = "restrict"
    DISSOCIATE = "dissociate"
    DELETE = "delete"


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

    answer = remote.admin(admin_socket, pb.GetBundleRequest())
    document = json.loads(answer.spiffe_bundle)
    pretty = answer.pem if format_ is Format.PEM else json.dumps(document, indent=2)
    emit(output, {"trust_domain": answer.trust_domain, "bundle": document, "pem": answer.pem}, pretty.splitlines())


@app.command("list")
def list_(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """List the bundles of foreign trust domains."""
    from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2 as pb

    answer = remote.admin(admin_socket, pb.ListFederatedBundlesRequest())
    found = [_value(each) for each in answer.bundles]
    names = ("trust_domain", "x509_authorities", "jwt_authorities", "sequence")
    rows = [[each[name] for name in names] for each in found]
    pretty = table(["TRUST DOMAIN", "X.509", "JWT", "SEQUENCE"], rows) if rows else ["no foreign bundles"]
    emit(output, {"bundles": found}, pretty)


@app.command("set")
def set_(
    trust_domain: DomainArgument,
    file: Annotated[Path, typer.Argument(help="The SPIFFE bundle document (JSON), or PEM certificates.")],
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Set the bundle of a foreign trust domain, in the place of the one that is there. In force when this returns."""
    from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2 as pb

    request = pb.BatchSetFederatedBundleRequest(bundle=[message_of(trust_domain, content_of(file))])
    answer = remote.admin(admin_socket, request)
    remote.check(answer.results[0].status, InvalidBundle)
    value = _value(answer.results[0].bundle)
    said = f"set {trust_domain}: {value['x509_authorities']} X.509 authorities, {value['jwt_authorities']} JWT keys"
    emit(output, value, [said])


@app.command()
def delete(
    trust_domain: DomainArgument,
    mode: Annotated[
        Mode,
        typer.Option("--mode", help="If entries federate with it: refuse, take it out of them, or delete them too."),
    ] = Mode.RESTRICT,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Forget the bundle of a foreign trust domain: nothing of it verifies here any more."""
    from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2 as pb

    request = pb.BatchDeleteFederatedBundleRequest(trust_domains=[trust_domain], mode=mode.upper())
    answer = remote.admin(admin_socket, request)
    remote.check(answer.results[0].status, InvalidBundle)
    emit(output, {"deleted": trust_domain}, [f"deleted the bundle of {trust_domain}"])


def content_of(file: Path) -> str:
    """The text of a file with a bundle. Raise InvalidInput."""
    try:
        if not file.is_file() or file.stat().st_size > ADMIN_MESSAGE_MAX_BYTES:
            raise InvalidInput(f"{str(file)!r} is not a regular file of at most {ADMIN_MESSAGE_MAX_BYTES} bytes")
        return file.read_text("utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot read {str(file)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{str(file)!r} is not UTF-8") from error


def message_of(trust_domain: str, content: str) -> Any:
    """A bundle as SPIRE's API has it, of a SPIFFE bundle document or of PEM certificates."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from sojourn._pb.spire.api.types import types_pb2 as types
    from sojourn.spiffe import bundle
    from sojourn.spiffe.ids import TrustDomain

    domain = TrustDomain.parse(trust_domain)
    if content.lstrip().startswith("-----BEGIN"):
        try:
            read = bundle.Bundle(domain, tuple(x509.load_pem_x509_certificates(content.encode())))
        except ValueError as error:
            raise InvalidBundle("neither a SPIFFE bundle document nor PEM certificates") from error
    else:
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InvalidBundle("neither a SPIFFE bundle document nor PEM certificates") from error
        read = bundle.parse(domain, document)
    if not read.x509_authorities and not read.jwt_authorities and not read.wit_authorities:
        raise InvalidBundle("there is no key in it that could be used")
    message = types.Bundle(
        trust_domain=domain.name, refresh_hint=read.refresh_hint_seconds, sequence_number=read.sequence
    )
    for certificate in read.x509_authorities:
        message.x509_authorities.add(asn1=certificate.public_bytes(Encoding.DER))
    for keys, added in (
        (read.jwt_authorities, message.jwt_authorities),
        (read.wit_authorities, message.wit_authorities),
    ):
        for key in keys.values():
            added.add(public_key=key.pkix_der, key_id=key.kid)
    return message


def _value(message: Any) -> dict[str, Any]:
    return {
        "trust_domain": message.trust_domain,
        "x509_authorities": len(message.x509_authorities),
        "jwt_authorities": len(message.jwt_authorities),
        "sequence": message.sequence_number,
        "refresh_hint": message.refresh_hint,
    }
