"""Trust bundles (SPIFFE_Trust_Domain_and_Bundle.md): the keys of one trust domain."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn.errors import InvalidBundle, InvalidToken, quoted
from sojourn.jose.jws import PublicKey
from sojourn.spiffe.ids import TrustDomain

NUMBER_END = 2**63  # of a sequence number and a refresh hint


@dataclass(frozen=True, eq=False)  # a bundle is itself: comparing and hashing by what is in it would cost too much
class Bundle:
    """The X.509 authorities, and the JWT and WIT keys (by `kid`), of a trust domain."""

    trust_domain: TrustDomain
    x509_authorities: tuple[x509.Certificate, ...]
    jwt_authorities: Mapping[str, PublicKey] = field(default_factory=dict)
    wit_authorities: Mapping[str, PublicKey] = field(default_factory=dict, kw_only=True)
    sequence: int = 0
    refresh_hint_seconds: int = 0
    tainted: frozenset[str] = frozenset()  # of our own: hex subject key identifiers and `kid`s that will be revoked

    @cached_property
    def x509_der(self) -> bytes:
        """DER certificates, one after the other, as the Workload API sends them."""
        return b"".join(certificate.public_bytes(Encoding.DER) for certificate in self.x509_authorities)

    @cached_property
    def x509_pem(self) -> bytes:
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.x509_authorities)

    @cached_property
    def jwks(self) -> bytes:
        """The JWT keys as a plain JWK Set, UTF-8, as the Workload API sends it."""
        return json.dumps({"keys": [dict(key.jwk) for key in self.jwt_authorities.values()]}).encode()

    @cached_property
    def wit_jwks(self) -> str:
        """The WIT keys as a plain JWK Set, as the Workload API sends it."""
        return json.dumps({"keys": [dict(key.jwk) for key in self.wit_authorities.values()]})

    def same_keys(self, other: "Bundle") -> bool:
        """Whether another bundle of the same trust domain has the same authorities and keys, in the same order."""
        return bool(self.document()["keys"] == other.document()["keys"])

    def document(self) -> dict[str, Any]:
        """The SPIFFE bundle document: every key with its `use`."""
        return {
            "keys": [dict(key) for key in self._keys],
            "spiffe_sequence": self.sequence,
            "spiffe_refresh_hint": self.refresh_hint_seconds,
        }

    @cached_property
    def _keys(self) -> tuple[dict[str, Any], ...]:  # of hundreds of certificates it takes a tenth of a second
        keys: list[dict[str, Any]] = [
            {
                **_coordinates(certificate),
                "use": "x509-svid",
                "x5c": [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()],
            }
            for certificate in self.x509_authorities
        ]
        keys += [{**key.jwk, "use": "jwt-svid"} for key in self.jwt_authorities.values()]
        keys += [{**key.jwk, "use": "wit-svid"} for key in self.wit_authorities.values()]
        return tuple(keys)


def parse(trust_domain: TrustDomain, document: object) -> Bundle:
    """Read a SPIFFE bundle document (RFC 7517 JWK Set). Raise InvalidBundle if it is none.

    As the standard wants, a JWK of an unknown kind or use is ignored, of several certificates in `x5c` all but the
    first are, and a bundle without a usable key is legal: it trusts nobody.
    """
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise InvalidBundle("not a JWK Set: there is no list of keys")
    authorities: list[x509.Certificate] = []
    keys: dict[str, dict[str, PublicKey]] = {"jwt-svid": {}, "wit-svid": {}}
    for jwk in document["keys"]:
        if not isinstance(jwk, dict) or jwk.get("kty") not in ("EC", "RSA"):
            continue
        if jwk.get("use") == "x509-svid" and jwk.get("x5c"):
            authorities.append(_certificate(jwk["x5c"]))
        elif jwk.get("use") in ("jwt-svid", "wit-svid"):
            try:
                key = PublicKey.from_jwk(jwk)
            except InvalidToken as error:
                raise InvalidBundle(f"a JWT key is not good: {error.public}", detail=error.detail) from error
            if any(key.kid in others for others in keys.values()):
                raise InvalidBundle(f"two keys have the key id {quoted(key.kid)}")
            keys[jwk["use"]][key.kid] = key
    return Bundle(
        trust_domain,
        tuple(authorities),
        keys["jwt-svid"],
        _number(document, "spiffe_sequence"),
        _number(document, "spiffe_refresh_hint"),
        wit_authorities=keys["wit-svid"],
    )


def _certificate(x5c: object) -> x509.Certificate:
    if not isinstance(x5c, list) or not isinstance(x5c[0], str):
        raise InvalidBundle("x5c is not a list of certificates")
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(x5c[0], validate=True))
        key = certificate.public_key()
    except Exception as error:
        raise InvalidBundle("a certificate in x5c cannot be parsed", detail=str(error)) from error
    try:
        PublicKey.from_key("-", key)  # type: ignore[arg-type]  # whatever it is, it says
    except Exception as error:
        raise InvalidBundle(
            "the key of a certificate in x5c is neither RSA nor of a curve that is accepted", detail=str(error)
        ) from error
    return certificate


def _number(document: Mapping[str, Any], name: str) -> int:
    value = document.get(name, 0)
    if type(value) is not int or not 0 <= value < NUMBER_END:
        raise InvalidBundle(f"{name} is not a whole number")
    return value


def _coordinates(certificate: x509.Certificate) -> dict[str, Any]:
    """The certificate's public key as a JWK without `kid` (X509-SVID.md 6.1)."""
    jwk = dict(PublicKey.from_key("-", certificate.public_key()).jwk)  # type: ignore[arg-type]  # our CAs are EC or RSA
    del jwk["kid"]
    return jwk
