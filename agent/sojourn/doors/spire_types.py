"""SPIRE's wire types and ours."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import grpc

from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.attestation.selectors import Selector
from sojourn.errors import InvalidEntry, InvalidInput, InvalidSelector, InvalidSpiffeId, SojournError
from sojourn.identity.entries import Entry
from sojourn.spiffe.ids import SpiffeId, TrustDomain

_PLAIN = (
    "x509_svid_ttl",
    "admin",
    "downstream",
    "expires_at",
    "store_svid",
    "jwt_svid_ttl",
    "hint",
)
MASKED = (
    "spiffe_id",
    "parent_id",
    "selectors",
    "federates_with",
    "dns_names",
    "revision_number",
    "created_at",
    "additional_attributes",
    *_PLAIN,
)


def status(error: SojournError | None) -> types.Status:
    """The status of one item of a batch."""
    if error is None:
        return types.Status(code=0, message="OK")
    code: int = grpc.StatusCode[error.grpc_status].value[0]
    return types.Status(code=code, message=error.public)


def spiffe_id(message: types.SPIFFEID) -> SpiffeId:
    """Raise InvalidSpiffeId if the message is no SPIFFE ID."""
    if not message.trust_domain and not message.path:
        raise InvalidSpiffeId("request must specify SPIFFE ID")
    return SpiffeId.from_parts(message.trust_domain, message.path)


def spiffe_id_message(value: SpiffeId) -> types.SPIFFEID:
    return types.SPIFFEID(trust_domain=value.trust_domain.name, path=value.path)


def selectors(messages: Iterable[types.Selector]) -> frozenset[Selector]:
    return frozenset(Selector.from_parts(message.type, message.value) for message in messages)


def entry_message(entry: Entry, mask: types.EntryMask | None = None) -> types.Entry:
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
        **{name: getattr(entry, name) for name in _PLAIN},
    )
    if entry.disable_x509_svid_prefetch or entry.jwt_svid_include_jti:
        message.additional_attributes.disable_x509_svid_prefetch = entry.disable_x509_svid_prefetch
        message.additional_attributes.jwt_svid_include_jti = entry.jwt_svid_include_jti
    if mask is not None:
        for name in MASKED:
            if not getattr(mask, name):
                message.ClearField(name)
    return message


def new_entry(message: types.Entry, node_id: SpiffeId) -> Entry:
    """An entry of SPIRE's message. A parent that is left out is this node. Raise InvalidEntry with SPIRE's texts."""
    changed = _changes(message, None)
    changed.setdefault("parent_id", node_id)
    if "spiffe_id" not in changed:
        raise InvalidEntry("failed to convert entry: invalid spiffe ID: request must specify SPIFFE ID")
    return Entry(id=message.id, **changed)


def entry_change(message: types.Entry, mask: types.EntryMask | None, node_id: SpiffeId) -> Callable[[Entry], Entry]:
    """The change that an update asks for: the masked fields, or without a mask all of them."""

    def change(old: Entry) -> Entry:
        changed = _changes(message, mask)
        if mask is None or mask.parent_id:
            changed.setdefault("parent_id", node_id)
        if (mask is None or mask.spiffe_id) and "spiffe_id" not in changed:
            raise InvalidEntry("failed to convert entry: invalid spiffe ID: request must specify SPIFFE ID")
        return replace(old, **changed)

    return change


def _changes(message: types.Entry, mask: types.EntryMask | None) -> dict[str, Any]:
    wanted = {name for name in MASKED if mask is None or getattr(mask, name)}
    changed: dict[str, Any] = {name: getattr(message, name) for name in _PLAIN if name in wanted}
    try:
        for name, what in (("spiffe_id", "spiffe ID"), ("parent_id", "parent ID")):
            if name in wanted and message.HasField(name):
                try:
                    changed[name] = spiffe_id(getattr(message, name))
                except InvalidSpiffeId as error:
                    raise InvalidEntry(f"failed to convert entry: invalid {what}: {error.public}") from error
        if "selectors" in wanted:
            changed["selectors"] = selectors(message.selectors)
        if "dns_names" in wanted:
            changed["dns_names"] = tuple(message.dns_names)
        if "federates_with" in wanted:
            changed["federates_with"] = tuple(_trust_domain(text) for text in message.federates_with)
        if "additional_attributes" in wanted:
            extra = message.additional_attributes
            changed["disable_x509_svid_prefetch"] = extra.disable_x509_svid_prefetch
            changed["jwt_svid_include_jti"] = extra.jwt_svid_include_jti
    except InvalidSelector as error:
        raise InvalidEntry(f"failed to convert entry: {error.public}") from error
    return changed


def _trust_domain(text: str) -> TrustDomain:
    try:
        return TrustDomain.parse(text)
    except InvalidInput as error:
        raise InvalidEntry(f"failed to convert entry: invalid federated trust domain: {error.public}") from error
