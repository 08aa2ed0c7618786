"""`sojourn federation`: the trust domains whose bundles the agent follows."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli import bundle as bundles
from sojourn.cli import remote
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, table
from sojourn.errors import InvalidInput

app = typer.Typer(no_args_is_help=True)


class Profile(StrEnum):
    """How an endpoint proves that it is the right one."""

    WEB = "https_web"
    SPIFFE = "https_spiffe"


DomainArgument = Annotated[str, typer.Argument(metavar="TRUST_DOMAIN", help="The foreign trust domain's name.")]
ProfileOption = Annotated[
    Profile,
    typer.Option(
        "--profile",
        help="How the endpoint proves itself: by a web certificate for the URL's host, or by an X.509-SVID.",
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option("--endpoint-id", metavar="SPIFFE_ID", help="The SPIFFE ID of the endpoint, for https_spiffe."),
]
UrlOption = Annotated[str, typer.Option("--url", help="Where its bundle is: an https URL.")]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        metavar="FILE",
        help="Its bundle as it is now (SPIFFE bundle document or PEM): https_spiffe needs a first one to begin with.",
    ),
]


@app.command()
def create(
    trust_domain: DomainArgument,
    url: UrlOption,
    profile: ProfileOption,
    endpoint_id: EndpointOption = None,
    bundle: BundleOption = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Follow the bundle of a trust domain. It is fetched in the background; `federation refresh` waits for it."""
    from sojourn._pb.spire.api.server.trustdomain.v1 import trustdomain_pb2 as pb

    wanted = _message(trust_domain, url, profile, endpoint_id, bundle)
    request = pb.BatchCreateFederationRelationshipRequest(federation_relationships=[wanted])
    _put(output, admin_socket, request)


@app.command()
def update(
    trust_domain: DomainArgument,
    url: UrlOption,
    profile: ProfileOption,
    endpoint_id: EndpointOption = None,
    bundle: BundleOption = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Change how a bundle is had; all of it is said anew. Without --bundle the bundle that is there stays."""
    from sojourn._pb.spire.api.server.trustdomain.v1 import trustdomain_pb2 as pb

    wanted = _message(trust_domain, url, profile, endpoint_id, bundle)
    request = pb.BatchUpdateFederationRelationshipRequest(federation_relationships=[wanted])
    _put(output, admin_socket, request)


@app.command("list")
def list_(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """List the trust domains that are followed, and how each fares."""
    found = _followed(admin_socket, "")
    rows = [
        [each["trust_domain"], each["profile"], each["fetched_at"] or "never", each["next_at"], each["fault"] or "none"]
        for each in found
    ]
    names = ["TRUST DOMAIN", "PROFILE", "FETCHED", "NEXT", "FAULT"]
    emit(output, {"relationships": found}, table(names, rows) if rows else ["no federation relationships"])


@app.command()
def show(
    trust_domain: DomainArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY
) -> None:
    """Show one: when its bundle was fetched last and will be next, and what is wrong."""
    [value] = _followed(admin_socket, trust_domain)
    emit(output, value, _lines(value))


@app.command()
def refresh(
    trust_domain: DomainArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY
) -> None:
    """Fetch a bundle now. It is in force when this returns; otherwise this says what failed."""
    from sojourn._pb.spire.api.server.trustdomain.v1 import trustdomain_pb2 as pb

    request = pb.RefreshBundleRequest(trust_domain=trust_domain)
    remote.admin(admin_socket, request)
    [value] = _followed(admin_socket, trust_domain)
    emit(output, value, [f"fetched the bundle of {trust_domain}: {_bundle(value)}"])


@app.command()
def delete(
    trust_domain: DomainArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY
) -> None:
    """Follow a bundle no more. The bundle itself stays in force until `sojourn bundle delete`."""
    from sojourn._pb.spire.api.server.trustdomain.v1 import trustdomain_pb2 as pb

    request = pb.BatchDeleteFederationRelationshipRequest(trust_domains=[trust_domain])
    answer = remote.admin(admin_socket, request)
    remote.check(answer.results[0].status, InvalidInput)
    said = [
        f"{trust_domain} is followed no more",
        f"its bundle, if there is one, stays in force: `sojourn bundle delete {trust_domain}` takes it away",
    ]
    emit(output, {"deleted": trust_domain}, said)


def value_of(message: Any) -> dict[str, Any]:
    """A relationship and how it fares, as JSON has it."""
    names = {"url": "bundle_endpoint_url", "profile": "bundle_endpoint_profile", "endpoint_id": "endpoint_spiffe_id"}
    value = told(message, **names)
    return value | {name: value[name] or None for name in ("endpoint_id", "fault", "fault_code")}


def status_lines(found: list[dict[str, Any]]) -> list[str]:
    """What `sojourn status` says of the trust domains that are followed."""
    lines = []
    for each in found:
        last = f"fetched {each['fetched_at']}" if each["fetched_at"] else "not fetched yet"
        lines.append(f"{'federation':<14} {each['trust_domain']}: {last}, next {each['next_at']}")
        if each["fault"]:
            kept = "its last bundle stays in force" if each["bundle"] else "there is NO bundle of it"
            lines.append(f"{'':<14} {kept}: {each['fault']}")
    return lines


def _followed(admin_socket: str | None, trust_domain: str) -> list[dict[str, Any]]:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.ListFederationRequest(trust_domain=trust_domain)
    answer = remote.admin(admin_socket, request)
    return [value_of(each) for each in answer.relationships]


def _message(trust_domain: str, url: str, profile: Profile, endpoint_id: str | None, bundle: Path | None) -> Any:
    from sojourn._pb.spire.api.types import types_pb2 as types

    message = types.FederationRelationship(trust_domain=trust_domain, bundle_endpoint_url=url)
    if profile is Profile.SPIFFE:
        if not endpoint_id:
            raise InvalidInput("--profile https_spiffe needs --endpoint-id, the SPIFFE ID that the endpoint shows")
        message.https_spiffe.endpoint_spiffe_id = endpoint_id
    else:
        if endpoint_id:
            raise InvalidInput("--endpoint-id goes with --profile https_spiffe: a web certificate has no SPIFFE ID")
        message.https_web.SetInParent()
    if bundle is not None:
        message.trust_domain_bundle.CopyFrom(bundles.message_of(trust_domain, bundles.content_of(bundle)))
    return message


def _put(output: Output, admin_socket: str | None, request: Any) -> None:
    """Have a relationship made or changed, and say what there is then."""
    answer = remote.admin(admin_socket, request)
    remote.check(answer.results[0].status, InvalidInput)
    name = answer.results[0].federation_relationship.trust_domain
    [value] = _followed(admin_socket, name)
    said = [f"following {name} at {value['url']} ({value['profile']}); its bundle is fetched in the background"]
    emit(output, value, [*said, f"`sojourn federation refresh {name}` waits for it and says what is wrong"])


def _lines(value: dict[str, Any]) -> list[str]:
    lines = [
        f"{'trust domain':<14} {value['trust_domain']}",
        f"{'endpoint':<14} {value['url']} ({value['profile']})",
        *([f"{'endpoint id':<14} {value['endpoint_id']}"] if value["endpoint_id"] else []),
        f"{'bundle':<14} {_bundle(value)}",
        f"{'fetched':<14} {value['fetched_at'] or 'never'}",
        f"{'next':<14} {value['next_at']}, each {value['refresh_seconds']} s",
    ]
    if value["fault"]:
        lines.append(f"{'fault':<14} {value['fault']} [{value['fault_code']}], {value['failures']} times in a row")
    return lines


def _bundle(value: dict[str, Any]) -> str:
    bundle = value["bundle"]
    if bundle is None:
        return "none yet"
    sequence = f", sequence {bundle['sequence']}" if bundle["sequence"] else ""
    return f"{bundle['x509_authorities']} X.509 authorities, {bundle['jwt_authorities']} JWT keys{sequence}"
