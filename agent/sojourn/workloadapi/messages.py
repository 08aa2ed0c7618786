"""What the Workload API sends, parsed into values that are known to be good."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from sojourn._pb import workload_pb2
from sojourn.errors import InvalidSvid, InvalidToken
from sojourn.jose.jws import LAST_SECOND, PublicKey, numeric_date, parse_unverified
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import PrivateKey, X509Svid, check_leaf, parse_certificates

X509Bundles = Mapping[TrustDomain, tuple[x509.Certificate, ...]]
JwtBundles = Mapping[TrustDomain, Mapping[str, PublicKey]]


@dataclass(frozen=True, repr=False)  # no generated repr: it would show the key
class X509SvidWithHint(X509Svid):
    """An X.509-SVID and the operator's hint what it is for, which may be empty."""

    hint: str = ""


@dataclass(frozen=True)
class X509Context:
    """All that a workload has at one moment: its SVIDs (at least one), trust bundles, and revocation lists."""

    svids: tuple[X509SvidWithHint, ...]
    bundles: X509Bundles
    crls: tuple[x509.CertificateRevocationList, ...] = ()

    @property
    def default(self) -> X509SvidWithHint:
        """The SVID to use when nothing else is known (SPIFFE Workload API, 5.3)."""
        return self.svids[0]

    def hinted(self, hint: str) -> X509SvidWithHint | None:
        """The first SVID with exactly this hint (SPIFFE Workload API, 8)."""
        return next((svid for svid in self.svids if svid.hint == hint), None)

    @cached_property
    def revoked(self) -> frozenset[tuple[bytes, int]]:
        """(issuer's name in DER, serial number) of each certificate that a list names."""
        return frozenset(
            (_issuer(crl, entry).public_bytes(), entry.serial_number) for crl in self.crls for entry in crl
        )


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """A JWT-SVID as fetched. `token` is a bearer credential: the repr hides it."""

    spiffe_id: SpiffeId
    token: str
    hint: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"JwtSvid({self.spiffe_id}, exp={self.expires_at.isoformat()})"


def x509_context(response: workload_pb2.X509SVIDResponse) -> X509Context:
    """Parse and check an answer of FetchX509SVID. Raise InvalidSvid or InvalidSpiffeId."""
    if not response.svids:
        raise InvalidSvid("agent sent no X.509-SVID")
    svids = tuple(_x509_svid(message) for message in response.svids)
    bundles = x509_bundles(response.federated_bundles)
    if not all(message.bundle for message in response.svids):
        raise InvalidSvid("agent sent an X.509-SVID without its bundle")
    own = {svid.spiffe_id.trust_domain: message.bundle for svid, message in zip(svids, response.svids, strict=True)}
    bundles |= {domain: parse_certificates(der) for domain, der in own.items()}
    return X509Context(svids, bundles, tuple(_crl(der) for der in response.crl))


def x509_bundles(messages: Mapping[str, bytes]) -> dict[TrustDomain, tuple[x509.Certificate, ...]]:
    """Parse bundles by `spiffe://trust-domain`. Raise InvalidSvid or InvalidSpiffeId."""
    return {_domain(name): parse_certificates(der) for name, der in messages.items()}


def jwt_bundles(messages: Mapping[str, bytes]) -> dict[TrustDomain, dict[str, PublicKey]]:
    """Parse JWK Sets by `spiffe://trust-domain`. Raise InvalidToken or InvalidSpiffeId."""
    return {_domain(name): jwk_set(document) for name, document in messages.items()}


def jwk_set(document: bytes) -> dict[str, PublicKey]:
    """Parse a JWK Set (RFC 7517, 5); keys that we cannot use are left out, as it says. Raise InvalidToken."""
    try:
        jwks: Any = json.loads(document)["keys"]
        candidates = [jwk for jwk in jwks if jwk.get("use", "jwt-svid") in {"jwt-svid", "sig"}]
    except Exception as error:
        raise InvalidToken("keys are not a JWK Set", reason_code="invalid_key", detail=str(error)) from error
    keys = {}
    for jwk in candidates:
        try:
            key = PublicKey.from_jwk(jwk)
        except InvalidToken:
            continue
        keys[key.kid] = key
    return keys


def jwt_svid(message: workload_pb2.JWTSVID) -> JwtSvid:
    """Parse one JWT-SVID of ours. Its signature is for the receiver to check. Raise InvalidToken."""
    unverified = parse_unverified(message.svid)
    if not message.spiffe_id or unverified.unverified_claims.get("sub") != message.spiffe_id:
        raise InvalidToken("agent sent a JWT-SVID whose subject is not its SPIFFE ID", reason_code="malformed")
    expires = numeric_date(unverified.unverified_claims, "exp")
    if expires is None:
        raise InvalidToken("agent sent a JWT-SVID that never expires", reason_code="malformed")
    expires_at = datetime.fromtimestamp(min(expires, LAST_SECOND), UTC)
    return JwtSvid(SpiffeId.parse(message.spiffe_id), message.svid, message.hint, expires_at)


def _x509_svid(message: workload_pb2.X509SVID) -> X509SvidWithHint:
    chain = parse_certificates(message.x509_svid)
    if not chain:
        raise InvalidSvid("agent sent an X.509-SVID without certificate")
    spiffe_id = check_leaf(chain[0])
    if message.spiffe_id != str(spiffe_id):
        raise InvalidSvid("agent sent an X.509-SVID whose certificate has another SPIFFE ID")
    return X509SvidWithHint(spiffe_id, chain, _key(message.x509_svid_key, chain[0]), message.hint)


def _key(der: bytes, leaf: x509.Certificate) -> PrivateKey:
    try:
        key = load_der_private_key(der, password=None)
    except Exception as error:
        raise InvalidSvid("private key cannot be parsed") from error  # its text might show key material
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise InvalidSvid("private key is neither EC nor RSA")
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise InvalidSvid("private key does not belong to the certificate")
    return key


def _crl(der: bytes) -> x509.CertificateRevocationList:
    try:
        return x509.load_der_x509_crl(der)
    except Exception as error:
        raise InvalidSvid("revocation list cannot be parsed", detail=str(error)) from error


def _issuer(crl: x509.CertificateRevocationList, entry: x509.RevokedCertificate) -> x509.Name:
    """Who issued what an entry names: in an indirect list somebody else than who signed the list (RFC 5280, 5.3.3)."""
    try:
        [name] = entry.extensions.get_extension_for_class(x509.CertificateIssuer).value
    except (x509.ExtensionNotFound, ValueError):
        return crl.issuer
    return name.value if isinstance(name, x509.DirectoryName) else crl.issuer


def _domain(name: str) -> TrustDomain:
    spiffe_id = SpiffeId.parse(name)
    if spiffe_id.path:
        raise InvalidSvid(f"bundle is for {name[:200]!r}, which is not a trust domain")
    return spiffe_id.trust_domain
