"""Entries as SPIRE's messages, and how they are shown."""

import json
from typing import Any

from sojourn.attestation.selectors import Selector
from sojourn.cli.options import option_seconds
from sojourn.cli.output import moment, whole
from sojourn.errors import InvalidInput, SojournError
from sojourn.identity.templates import parse_id
from sojourn.spiffe.ids import SpiffeId


def message(
    spiffe_id: str | None,
    selectors: list[str] | None,
    parent_id: str | None,
    x509_svid_ttl: str | None,
    jwt_svid_ttl: str | None,
    hint: str | None,
    dns_names: list[str] | None,
    expires_at: int | None,
    priority: int | None,
    federates_with: list[str] | None,
    jwt_claims: list[str] | None,
    owner: str | None,
    sponsor: str | None,
) -> Any:
    """What is said of an entry, as SPIRE's message. Raise InvalidInput."""
    from sojourn._pb.spire.api.types import types_pb2 as types

    entry = types.Entry(
        spiffe_id=id_or_template(spiffe_id) if spiffe_id else None,
        parent_id=_spiffe_id(parent_id) if parent_id else None,
        selectors=selector_messages(selectors or []),
        x509_svid_ttl=_seconds("--x509-svid-ttl", x509_svid_ttl),
        jwt_svid_ttl=_seconds("--jwt-svid-ttl", jwt_svid_ttl),
        hint=hint or "",
        dns_names=dns_names or [],
        expires_at=expires_at or 0,
        priority=priority,
        federates_with=federates_with or [],
        owner=owner,
        sponsor=sponsor,
    )
    if jwt_claims is not None:
        entry.jwt_claims.update(_claims(jwt_claims))
        entry.jwt_claims.SetInParent()
    return entry


def parent_of(parent_id: str | None, node: str | None, spiffe_id: str, *, every_node: bool) -> str | None:
    """The parent that is named by its ID, by the name of a server's node, or as `every_node`, in the trust domain of
    this SPIFFE ID. Raise InvalidInput if it is said twice.
    """
    if (parent_id is not None) + (node is not None) + every_node > 1:
        raise InvalidInput("--parent-id, --node and --every-node exclude each other: each says whose the entry is")
    agents = f"spiffe://{spiffe_id.removeprefix('spiffe://').partition('/')[0]}/spire/agent"
    if every_node:
        return agents
    if node is None:
        return parent_id
    if "/" in node or not node:
        raise InvalidInput(f"--node: {node[:100]!r} is no name of a node: it is one segment of a SPIFFE ID")
    return f"{agents}/sojourn/{node}"


def _claims(texts: list[str]) -> dict[str, Any]:
    """Claims by name: NAME=TEXT, or NAME:=JSON. One empty text: none."""
    from sojourn.identity.custom_claims import JwtClaims  # with it come JOSE and cryptography, which few commands need

    found: dict[str, Any] = {}
    for text in texts if texts != [""] else []:
        name, sign, value = text.partition("=")
        if not sign or not name.removesuffix(":"):
            raise InvalidInput(f"--jwt-claim: {text[:50]!r} is neither NAME=TEXT nor NAME:=JSON")
        as_json = name.endswith(":")
        name = name.removesuffix(":")
        if name in found:
            raise InvalidInput(f"--jwt-claim: {name[:50]!r} is given twice")
        try:
            found[name] = json.loads(value) if as_json else value
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"--jwt-claim: {text[:50]!r} is not JSON behind :=") from error
    return JwtClaims.parse(found).declared


def _spiffe_id(text: str) -> Any:
    from sojourn._pb.spire.api.types import types_pb2 as types

    try:
        value = SpiffeId.parse(text)
    except SojournError as error:
        raise InvalidInput(f"{text[:200]!r} is not a SPIFFE ID: {error.public}") from error
    return types.SPIFFEID(trust_domain=value.trust_domain.name, path=value.path)


def id_or_template(text: str) -> Any:
    """A SPIFFE ID, or a template of one, as SPIRE's message."""
    from sojourn._pb.spire.api.types import types_pb2 as types

    try:
        value = parse_id(text)
    except SojournError as error:
        raise InvalidInput(f"{text[:200]!r} is not a SPIFFE ID: {error.public}") from error
    return types.SPIFFEID(trust_domain=value.trust_domain.name, path=value.path)


def selector_messages(texts: list[str]) -> list[Any]:
    """`TYPE:VALUE` texts as SPIRE's messages."""
    from sojourn._pb.spire.api.types import types_pb2 as types

    made = (Selector.parse(text) for text in texts)
    return [types.Selector(type=each.type, value=each.value) for each in made]


def _seconds(option: str, text: str | None) -> int:
    if text is None:
        return 0
    seconds = option_seconds(option, text)
    if seconds != int(seconds) or seconds > 2**31 - 1:
        raise InvalidInput(f"{option}: {text[:50]!r} is not a whole number of seconds")
    return int(seconds)


def value_of(entry: Any) -> dict[str, Any]:
    """An entry of SPIRE's message, as it is shown."""
    from google.protobuf.json_format import MessageToDict

    return {
        "id": entry.id,
        "spiffe_id": f"spiffe://{entry.spiffe_id.trust_domain}{entry.spiffe_id.path}",
        "parent_id": f"spiffe://{entry.parent_id.trust_domain}{entry.parent_id.path}",
        "selectors": [f"{each.type}:{each.value}" for each in entry.selectors],
        "x509_svid_ttl": entry.x509_svid_ttl,
        "jwt_svid_ttl": entry.jwt_svid_ttl,
        "hint": entry.hint,
        "dns_names": list(entry.dns_names),
        "federates_with": list(entry.federates_with),
        "admin": entry.admin,
        "downstream": entry.downstream,
        "store_svid": entry.store_svid,
        "additional_attributes": {
            "disable_x509_svid_prefetch": entry.additional_attributes.disable_x509_svid_prefetch,
            "jwt_svid_include_jti": entry.additional_attributes.jwt_svid_include_jti,
        },
        "expires_at": moment(entry.expires_at),
        "priority": entry.priority,
        "jwt_claims": whole(MessageToDict(entry.jwt_claims)),
        "owner": entry.owner,
        "sponsor": entry.sponsor,
        "origin": entry.origin,
        "revision": entry.revision_number,
        "created_at": moment(entry.created_at),
    }
