"""What a node keeps over restarts, as the texts that it is kept as. Pure: what cannot be read raises InvalidInput."""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key

from sojourn.attestation.selectors import Selector
from sojourn.errors import InvalidInput, InvalidSvid, told_as
from sojourn.identity import entries as registrations
from sojourn.identity.entries import Entry
from sojourn.spiffe import bundle as bundles
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import AGENT_PATH, SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import X509Svid, parse_certificates, spiffe_id_of
from sojourn.upstream.authorized_entries import Authorized
from sojourn.upstream.node_attestation import AttestedNode

_FLAGS: Final = ("admin", "downstream", "store_svid", "disable_x509_svid_prefetch", "jwt_svid_include_jti")


@dataclass(frozen=True, slots=True)
class KeptNode:
    """A node as it was, and the SHA-256 of the X.509 authorities that it was to join by, in hex."""

    node: AttestedNode
    joined_by: str


@dataclass(frozen=True, slots=True)
class KeptSvid:
    """A workload's X.509-SVID: of which entry, as DER. Times: seconds since the epoch."""

    spiffe_id: str
    revision: int
    chain: bytes
    key: bytes
    not_before: float
    not_after: float

    def svid(self) -> X509Svid:
        """Raise InvalidSvid."""
        return _svid(self.chain, self.key)

    def kept(self) -> "KeptSvid":
        return self


@dataclass(frozen=True, slots=True)
class SignedSvid:
    """One that was signed in this run, and is made a text of when it is written."""

    entry: Entry
    signed: X509Svid

    @property
    def not_after(self) -> float:
        return self.signed.not_after.timestamp()

    def kept(self) -> KeptSvid:
        svid, begins, ends = self.signed, self.signed.not_before.timestamp(), self.not_after
        return KeptSvid(str(self.entry.spiffe_id), self.entry.revision, svid.chain_der, svid.key_der, begins, ends)


def node_text(kept: KeptNode) -> bytes:
    svid = kept.node.svid
    return _text(
        {
            "chain": _b64(svid.chain_der),
            "key": _b64(svid.key_der),
            "reattestable": kept.node.reattestable,
            "joined_by": kept.joined_by,
        }
    )


def read_node(text: bytes, trust_domain: TrustDomain) -> KeptNode:
    with _reading("this node's SVID"):
        found = json.loads(text)
        svid = _svid(b64decode(found["chain"], validate=True), b64decode(found["key"], validate=True))
        if svid.spiffe_id.trust_domain != trust_domain or not svid.spiffe_id.path.startswith(AGENT_PATH):
            raise InvalidSvid(f"{str(svid.spiffe_id)!r} is no agent of {trust_domain.name!r}")
        return KeptNode(AttestedNode(svid, bool(found["reattestable"])), str(found["joined_by"]))


def bundles_text(own: Bundle, federated: Mapping[TrustDomain, Bundle]) -> bytes:
    return _text(
        {
            "own": own.document(),
            "tainted": sorted(own.tainted),
            "federated": {domain.name: each.document() for domain, each in federated.items()},
        }
    )


def read_bundles(text: bytes, trust_domain: TrustDomain) -> tuple[Bundle, dict[TrustDomain, Bundle]]:
    with _reading("bundles"):
        found = json.loads(text)
        own = bundles.parse(trust_domain, found["own"])
        if not own.x509_authorities:
            raise InvalidInput("the bundle has no X.509 authority")
        federated = {TrustDomain.parse(name): document for name, document in found["federated"].items()}
        own = replace(own, tainted=frozenset(map(str, found["tainted"])))
        return own, {each: bundles.parse(each, doc) for each, doc in federated.items()}


def entries_text(node_id: SpiffeId, authorized: Authorized) -> bytes:
    # One by one: what is made by one call of the library's holds up every other thread meanwhile.
    entries = b",".join(_text(_entry_fields(each)) for each in authorized.entries.values())
    return b'{"node":%b,"entries":[%b]}' % (json.dumps(str(node_id)).encode(), entries)


def read_entries(text: bytes, node_id: SpiffeId) -> Authorized:
    with _reading("entries"):
        found = json.loads(text)
        if found["node"] != str(node_id):
            raise InvalidInput(f"they are those of {found['node']!r}")
        entries = [_entry(each, node_id) for each in found["entries"]]
        for entry in entries:
            registrations.check(entry, node_id.trust_domain)
        return Authorized({each.id: each for each in entries})


def svids_text(node_id: SpiffeId, kept: Mapping[str, KeptSvid]) -> bytes:
    """`kept`: by the entry's ID."""
    svids = {
        name: [each.spiffe_id, each.revision, _b64(each.chain), _b64(each.key), each.not_before, each.not_after]
        for name, each in kept.items()
    }
    return _text({"node": str(node_id), "svids": svids})


def read_svids(text: bytes, node_id: SpiffeId) -> dict[str, KeptSvid]:
    """What is in each is looked at when it is used."""
    with _reading("SVIDs"):
        found = json.loads(text)
        if found["node"] != str(node_id):
            raise InvalidInput(f"they are those of {found['node']!r}")
        return {
            name: KeptSvid(
                str(spiffe_id),
                int(revision),
                b64decode(chain, validate=True),
                b64decode(key, validate=True),
                float(begins),
                float(ends),
            )
            for name, (spiffe_id, revision, chain, key, begins, ends) in found["svids"].items()
        }


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Within it whatever cannot be read is InvalidInput."""
    try:
        with told_as(InvalidInput, f"its {what} cannot be read"):
            yield
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
        UnsupportedAlgorithm,
    ) as error:
        raise InvalidInput(f"its {what} cannot be read") from error


def _entry_fields(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "spiffe_id": str(entry.spiffe_id),
        "selectors": sorted([each.type, each.value] for each in entry.selectors),
        "hint": entry.hint,
        "federates_with": [each.name for each in entry.federates_with],
        "revision": entry.revision,
        "created_at": entry.created_at,
        **{name: True for name in _FLAGS if getattr(entry, name)},
    }


def _entry(fields: Mapping[str, Any], node_id: SpiffeId) -> Entry:
    return Entry(
        id=str(fields["id"]),
        spiffe_id=SpiffeId.parse(fields["spiffe_id"]),
        parent_id=node_id,
        selectors=frozenset(Selector.from_parts(*each) for each in fields["selectors"]),
        hint=str(fields["hint"]),
        federates_with=tuple(TrustDomain.parse(each) for each in fields["federates_with"]),
        revision=int(fields["revision"]),
        created_at=int(fields["created_at"]),
        admin=bool(fields.get("admin")),
        downstream=bool(fields.get("downstream")),
        store_svid=bool(fields.get("store_svid")),
        disable_x509_svid_prefetch=bool(fields.get("disable_x509_svid_prefetch")),
        jwt_svid_include_jti=bool(fields.get("jwt_svid_include_jti")),
    )


def _svid(chain_der: bytes, key_der: bytes) -> X509Svid:
    chain = parse_certificates(chain_der)
    if not chain:
        raise InvalidSvid("there is no certificate")
    key = load_der_private_key(key_der, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise InvalidSvid("its key is of a kind that is not accepted")
    if chain[0].public_key() != key.public_key():
        raise InvalidSvid("its key is another one's")
    return X509Svid(spiffe_id_of(chain[0]), chain, key)


def _text(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _b64(content: bytes) -> str:
    return b64encode(content).decode()
