"""SPIRE's wire types and ours."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509 import Certificate, load_der_x509_certificate
from google.protobuf.message import Message

from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.attestation.selectors import Selector
from sojourn.authority.x509_profile import key_id
from sojourn.errors import (
    InvalidBundle,
    InvalidEntry,
    InvalidInput,
    InvalidSpiffeId,
    InvalidToken,
    SojournError,
    quoted,
    told_as,
)
from sojourn.http2.statuses import STATUSES
from sojourn.identity import entries
from sojourn.identity.custom_claims import JwtClaims
from sojourn.identity.entries import Registration
from sojourn.identity.templates import IdTemplate
from sojourn.jose.jws import PublicKey
from sojourn.spiffe.bundle import NUMBER_END, Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spireapi import struct_claims

Item = TypeVar("Item")
Masked = TypeVar("Masked", bound=Message)
_PLAIN = (
    "x509_svid_ttl",
    "admin",
    "downstream",
    "expires_at",
    "store_svid",
    "jwt_svid_ttl",
    "hint",
)
_OWNERS = ("owner", "sponsor")
MASKED = (
    "spiffe_id",
    "parent_id",
    "selectors",
    "federates_with",
    "dns_names",
    "revision_number",
    "created_at",
    "additional_attributes",
    "priority",
    "origin",
    "jwt_claims",
    *_OWNERS,
    *_PLAIN,
)


def status(error: SojournError | None) -> types.Status:
    """The status of one item of a batch."""
    if error is None:
        return types.Status(code=0, message="OK")
    return types.Status(code=STATUSES[error.grpc_status], message=error.public)


def spiffe_id(message: types.SPIFFEID) -> SpiffeId:
    """Raise InvalidSpiffeId if the message is no SPIFFE ID."""
    if not message.trust_domain and not message.path:
        raise InvalidSpiffeId("request must specify SPIFFE ID")
    return SpiffeId.from_parts(message.trust_domain, message.path)


def spiffe_id_message(value: SpiffeId | IdTemplate) -> types.SPIFFEID:
    return types.SPIFFEID(trust_domain=value.trust_domain.name, path=value.path)


def id_or_template(message: types.SPIFFEID) -> SpiffeId | IdTemplate:
    """What an entry may have as its SPIFFE ID. Raise InvalidSpiffeId."""
    if "{" in message.path or "}" in message.path:
        return IdTemplate.from_parts(message.trust_domain, message.path)
    return spiffe_id(message)


def selectors(messages: Iterable[types.Selector]) -> frozenset[Selector]:
    return frozenset(Selector.from_parts(message.type, message.value) for message in messages)


def output_mask(request: Any) -> Any:
    """The mask of what a request wants to see, or None: all of it."""
    return request.output_mask if request.HasField("output_mask") else None


def masked(message: Masked, mask: Any, names: Iterable[str]) -> Masked:
    """The message without those of the fields `names` that the mask leaves out."""
    if mask is not None:
        for name in names:
            if not getattr(mask, name):
                message.ClearField(name)
    return message


def page_of(found: Sequence[Item], size: int) -> tuple[Sequence[Item], Item | None]:
    """The first page of what was found, and its last item if there is more behind it. No size: all is one page."""
    if size <= 0 or len(found) <= size:
        return found, None
    return found[:size], found[size - 1]


def entry_message(entry: Registration, mask: types.EntryMask | None = None) -> types.Entry:
    """An entry as SPIRE's message; without a mask, all of it. The ID is always there."""
    message = types.Entry(
        id=entry.id,
        spiffe_id=spiffe_id_message(entry.spiffe_id),
        parent_id=spiffe_id_message(entry.parent_id),
        selectors=[types.Selector(type=each.type, value=each.value) for each in sorted(entry.selectors)],
        federates_with=[domain.name for domain in entry.federates_with],
        dns_names=entry.dns_names,
        revision_number=entry.revision,
        created_at=entry.created_at,
        priority=entry.priority or None,
        origin=entry.origin,
        **{name: getattr(entry, name) or None for name in _OWNERS},
        **{name: getattr(entry, name) for name in _PLAIN},
    )
    if entry.jwt_claims:
        message.jwt_claims.update(entry.jwt_claims.declared)
    if entry.disable_x509_svid_prefetch or entry.jwt_svid_include_jti:
        message.additional_attributes.disable_x509_svid_prefetch = entry.disable_x509_svid_prefetch
        message.additional_attributes.jwt_svid_include_jti = entry.jwt_svid_include_jti
    return masked(message, mask, MASKED)


def new_entry(message: types.Entry, default_parent: SpiffeId | None) -> Registration:
    """An entry of SPIRE's message. `default_parent` is that of one that names none; None: it has to. Raise InvalidEntry
    with SPIRE's texts.
    """
    return entries.registration({"id": message.id, **_changes(message, None, default_parent)})


def entry_change(
    message: types.Entry, mask: types.EntryMask | None, default_parent: SpiffeId | None
) -> Callable[[Registration], Registration]:
    """The change that an update asks for: the masked fields, or without a mask all of them."""
    return lambda old: entries.changed(old, _changes(message, mask, default_parent))


def _changes(message: types.Entry, mask: types.EntryMask | None, default_parent: SpiffeId | None) -> dict[str, Any]:
    wanted = {name for name in MASKED if mask is None or getattr(mask, name)}
    changed: dict[str, Any] = {name: getattr(message, name) for name in _PLAIN if name in wanted}
    if "spiffe_id" in wanted:
        with told_as(InvalidEntry, "failed to convert entry: invalid spiffe ID"):
            changed["spiffe_id"] = id_or_template(message.spiffe_id)
    if "parent_id" in wanted:
        with told_as(InvalidEntry, "failed to convert entry: invalid parent ID"):
            named = message.HasField("parent_id") or default_parent is None
            changed["parent_id"] = spiffe_id(message.parent_id) if named else default_parent
    if "priority" in wanted and (mask is not None or message.HasField("priority")):
        changed["priority"] = message.priority
    for name in _OWNERS:
        if name in wanted and (mask is not None or message.HasField(name)):
            changed[name] = getattr(message, name)
    if "jwt_claims" in wanted and (mask is not None or message.HasField("jwt_claims")):
        changed["jwt_claims"] = JwtClaims.parse(struct_claims.read(message.jwt_claims))
    if "selectors" in wanted:
        with told_as(InvalidEntry, "failed to convert entry"):
            changed["selectors"] = selectors(message.selectors)
    if "dns_names" in wanted:
        changed["dns_names"] = tuple(message.dns_names)
    if "federates_with" in wanted:
        with told_as(InvalidEntry, "failed to convert entry: invalid federated trust domain"):
            changed["federates_with"] = tuple(TrustDomain.parse(text) for text in message.federates_with)
    if "additional_attributes" in wanted:
        extra = message.additional_attributes
        changed["disable_x509_svid_prefetch"] = extra.disable_x509_svid_prefetch
        changed["jwt_svid_include_jti"] = extra.jwt_svid_include_jti
    return changed


def trust_domain(text: str) -> TrustDomain:
    """A trust domain by its name or its ID. Raise InvalidInput."""
    with told_as(InvalidInput, "trust domain argument is not valid"):
        return TrustDomain.parse(text)


BUNDLE_FIELDS = ("x509_authorities", "jwt_authorities", "wit_authorities", "refresh_hint", "sequence_number")


def bundle_message(bundle: Bundle, mask: types.BundleMask | None = None) -> types.Bundle:
    """A bundle as SPIRE's message; without a mask, all of it. The trust domain is always there."""
    message = types.Bundle(
        trust_domain=bundle.trust_domain.name,
        refresh_hint=bundle.refresh_hint_seconds,
        sequence_number=bundle.sequence,
    )
    for certificate in bundle.x509_authorities:
        message.x509_authorities.add(
            asn1=certificate.public_bytes(Encoding.DER),
            tainted=bool(bundle.tainted) and key_id(certificate) in bundle.tainted,
        )
    for key in bundle.jwt_authorities.values():
        message.jwt_authorities.add(public_key=key.pkix_der, key_id=key.kid, tainted=key.kid in bundle.tainted)
    for key in bundle.wit_authorities.values():
        message.wit_authorities.add(public_key=key.pkix_der, key_id=key.kid, tainted=key.kid in bundle.tainted)
    return masked(message, mask, BUNDLE_FIELDS)


def bundle(message: types.Bundle, old: Bundle | None = None, mask: types.BundleMask | None = None) -> Bundle:
    """A bundle of SPIRE's message; with a mask, `old` where the mask does not say. Raise InvalidBundle."""
    domain = trust_domain(message.trust_domain)
    base = old or Bundle(domain, ())

    def wanted(name: str) -> bool:
        return mask is None or bool(getattr(mask, name))

    for name in ("sequence_number", "refresh_hint"):
        if not 0 <= getattr(message, name) < NUMBER_END:
            raise InvalidBundle(f"{name} is out of range")
    made = Bundle(
        domain,
        _authorities(message.x509_authorities) if wanted("x509_authorities") else base.x509_authorities,
        _keys(message.jwt_authorities) if wanted("jwt_authorities") else base.jwt_authorities,
        message.sequence_number if wanted("sequence_number") else base.sequence,
        message.refresh_hint if wanted("refresh_hint") else base.refresh_hint_seconds,
        wit_authorities=_keys(message.wit_authorities) if wanted("wit_authorities") else base.wit_authorities,
    )
    both = made.jwt_authorities.keys() & made.wit_authorities.keys()
    if both:
        raise InvalidBundle(f"two keys have the key id {quoted(min(both))}")
    return made


def _authorities(messages: Iterable[types.X509Certificate]) -> tuple[Certificate, ...]:
    try:
        found = tuple(load_der_x509_certificate(message.asn1) for message in messages)
    except Exception as error:
        raise InvalidBundle("failed to convert X.509 authority: it is no certificate", detail=str(error)) from error
    for certificate in found:
        try:
            _key("-", certificate.public_key())
        except Exception as error:
            raise InvalidBundle(
                "failed to convert X.509 authority: its key is neither RSA nor of a curve that is accepted",
                detail=str(error),
            ) from error
    return found


def _keys(messages: Iterable[types.JWTKey | types.WITKey]) -> dict[str, PublicKey]:
    keys: dict[str, PublicKey] = {}
    for message in messages:
        if not message.key_id:
            raise InvalidBundle("failed to convert JWT authority: it has no key id")
        try:
            loaded = load_der_public_key(message.public_key)
        except Exception as error:
            raise InvalidBundle("failed to convert JWT authority: it is no public key", detail=str(error)) from error
        if message.key_id in keys:
            raise InvalidBundle(f"failed to convert JWT authority: two have the key id {quoted(message.key_id)}")
        with told_as(InvalidBundle, "failed to convert JWT authority"):
            keys[message.key_id] = _key(message.key_id, loaded)
    return keys


def _key(key_id: str, key: object) -> PublicKey:
    if not isinstance(key, EllipticCurvePublicKey | RSAPublicKey):
        raise InvalidToken("it is neither an EC nor an RSA key", reason_code="invalid_key")
    return PublicKey.from_key(key_id, key)
