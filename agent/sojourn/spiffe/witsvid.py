"""WIT-SVIDs (WIT-SVID.md, incubating): bound to a key of the workload's own, and so no bearer tokens."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from sojourn.jose.jws import SigningKey, private_jwk
from sojourn.spiffe.ids import SpiffeId

TYP = "wit+jwt"


@dataclass(frozen=True)
class WitSvid:
    """A WIT-SVID as issued. `key` is the workload's, P-256 for ES256; `kid` names the one that signed. The repr hides
    token and key.
    """

    spiffe_id: SpiffeId
    token: str
    key: ec.EllipticCurvePrivateKey
    claims: dict[str, Any]
    not_before: datetime
    not_after: datetime
    kid: str

    def __repr__(self) -> str:
        return f"WitSvid({self.spiffe_id}, exp={self.not_after.isoformat()})"

    @property
    def serial(self) -> str:
        """What tells it from others: the `jti`."""
        return str(self.claims["jti"])

    @cached_property
    def key_jwk(self) -> str:
        """The private key as a JWK (RFC 7517), JSON."""
        return private_jwk(self.key)


def issue(
    signer: SigningKey, spiffe_id: SpiffeId, *, issued_at: datetime, expires_at: datetime, jti: str = ""
) -> WitSvid:
    """Make a key and sign a WIT-SVID for it: `sub`, `exp`, `iat`, `jti` and `cnf`, and nobody it is for (no `aud`)."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = SigningKey.from_private("-", key)
    claims = {
        "sub": str(spiffe_id),
        "exp": int(expires_at.timestamp()),
        "iat": int(issued_at.timestamp()),
        "jti": jti or secrets.token_urlsafe(16),
        "cnf": {"jwk": {**{name: own.public.jwk[name] for name in ("kty", "crv", "x", "y")}, "alg": own.algorithm}},
    }
    return WitSvid(
        spiffe_id,
        signer.sign(claims, typ=TYP),
        key,
        claims,
        issued_at.replace(microsecond=0),
        expires_at.replace(microsecond=0),
        signer.kid,
    )
