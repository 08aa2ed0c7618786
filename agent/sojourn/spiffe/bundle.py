"""Trust bundles (SPIFFE_Trust_Domain_and_Bundle.md): the keys of one trust domain."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.jose import PublicKey


@dataclass(frozen=True)
class Bundle:
    """The X.509 authorities and JWT keys (by `kid`) of a trust domain."""

    trust_domain: TrustDomain
    x509_authorities: tuple[x509.Certificate, ...]
    jwt_authorities: Mapping[str, PublicKey] = field(default_factory=dict)
    sequence: int = 0
    refresh_hint_seconds: int = 0

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

    def document(self) -> dict[str, Any]:
        """The SPIFFE bundle document: every key with its `use`."""
        keys: list[dict[str, Any]] = [
            {
                **_coordinates(certificate),
                "use": "x509-svid",
                "x5c": [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()],
            }
            for certificate in self.x509_authorities
        ]
        keys += [{**key.jwk, "use": "jwt-svid"} for key in self.jwt_authorities.values()]
        return {
            "keys": keys,
            "spiffe_sequence": self.sequence,
            "spiffe_refresh_hint": self.refresh_hint_seconds,
        }


def _coordinates(certificate: x509.Certificate) -> dict[str, Any]:
    """The certificate's public key as a JWK without `kid` (X509-SVID.md 6.1)."""
    jwk = dict(PublicKey.from_key("-", certificate.public_key()).jwk)  # type: ignore[arg-type]  # our CAs are EC or RSA
    del jwk["kid"]
    return jwk
