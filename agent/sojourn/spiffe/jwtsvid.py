"""JWT-SVIDs (JWT-SVID.md): what is signed, and when one is good."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sojourn.errors import InvalidInput, InvalidSpiffeId, InvalidToken, quoted
from sojourn.limits import JWT_LEEWAY_SECONDS
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.jose import (
    LAST_SECOND,
    PublicKey,
    Signatures,
    SigningKey,
    UnverifiedJws,
    VerifiedClaims,
    audiences,
    numeric_date,
    parse_unverified,
)

TYPES = (None, "JWT", "JOSE")
OWN_CLAIMS = frozenset({"sub", "aud", "exp", "iat", "jti", "iss", "nbf"})  # which no claim that is added may replace


@dataclass(frozen=True)
class JwtSvid:
    """A JWT-SVID as issued or as verified. `token` is a bearer credential: the repr hides it."""

    spiffe_id: SpiffeId
    token: str
    audience: tuple[str, ...]
    issued_at: datetime | None
    expires_at: datetime
    claims: VerifiedClaims

    def __repr__(self) -> str:
        return f"JwtSvid({self.spiffe_id}, aud={list(self.audience)}, exp={self.expires_at.isoformat()})"


def issue(
    key: SigningKey,
    spiffe_id: SpiffeId,
    audience: str | Sequence[str],
    *,
    issued_at: datetime,
    expires_at: datetime,
    issuer: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> JwtSvid:
    """Sign a JWT-SVID: `sub`, `aud` (a string if given as one, otherwise a list), `exp`, `iat`, `jti` (128 random
    bits), and `iss` if given. `more`: further claims. Raise InvalidInput if one of those is among the claims above.
    """
    if clash := OWN_CLAIMS & (more or {}).keys():
        raise InvalidInput(f"a JWT-SVID's {', '.join(sorted(clash))} cannot be set by the one who asks for it")
    audiences_named = (audience,) if isinstance(audience, str) else tuple(audience)
    claims: dict[str, Any] = {
        **(more or {}),
        "sub": str(spiffe_id),
        "aud": audience if isinstance(audience, str) else list(audience),
        "exp": int(expires_at.timestamp()),
        "iat": int(issued_at.timestamp()),
        "jti": secrets.token_urlsafe(16),
    }
    if issuer:
        claims["iss"] = issuer
    token = key.sign(claims, typ="JWT")
    return JwtSvid(spiffe_id, token, audiences_named, issued_at, expires_at, VerifiedClaims(claims))


def verify(
    token: str,
    audience: Sequence[str],
    bundles: Mapping[TrustDomain, Mapping[str, PublicKey]],
    now: datetime,
    signatures: Signatures | None = None,
) -> JwtSvid:
    """Validate a JWT-SVID (JWT-SVID.md 4) for one of `audience` and return it; raise InvalidToken otherwise.

    The key is looked up by `kid` in the bundle of the trust domain in `sub`, and nowhere else. Times have a leeway of
    JWT_LEEWAY_SECONDS. `signatures`: those that need not be checked again.
    """
    unverified = parse_unverified(token)
    if unverified.typ not in TYPES:
        raise InvalidToken(
            f"token is not a JWT-SVID: its type is {(unverified.typ or '')[:32]!r}", reason_code="wrong_type"
        )
    if not unverified.kid:
        raise InvalidToken("token header missing key id", reason_code="malformed")
    spiffe_id = _subject(unverified)
    expires = numeric_date(unverified.unverified_claims, "exp")
    if expires is None:
        raise InvalidToken("token missing exp claim", reason_code="malformed")
    keys = bundles.get(spiffe_id.trust_domain)
    if keys is None:
        raise InvalidToken(
            f"no keys found for trust domain {quoted(spiffe_id.trust_domain.name)}", reason_code="unknown_trust_domain"
        )
    key = keys.get(unverified.kid)
    if key is None:
        raise InvalidToken(
            f"public key {quoted(unverified.kid)} not found in trust domain {quoted(spiffe_id.trust_domain.name)}",
            reason_code="unknown_key",
        )
    if signatures is None:
        unverified.check_signature(key)
    else:
        signatures.check(unverified, key)
    return _checked(unverified, spiffe_id, expires, audience, now)


def _checked(
    jws: UnverifiedJws, spiffe_id: SpiffeId, expires: float, audience: Sequence[str], now: datetime
) -> JwtSvid:
    claims = jws.unverified_claims
    seconds = now.timestamp()
    if expires + JWT_LEEWAY_SECONDS <= seconds:
        raise InvalidToken("token has expired", reason_code="expired")
    not_before, issued = numeric_date(claims, "nbf"), numeric_date(claims, "iat")
    if (not_before or 0) > seconds + JWT_LEEWAY_SECONDS or (issued or 0) > seconds + JWT_LEEWAY_SECONDS:
        raise InvalidToken("token is not valid yet", reason_code="not_yet_valid")
    named = audiences(claims)
    if not set(named) & set(audience):
        raise InvalidToken(
            f"expected audience in {_listed(audience)} (audience={_listed(named)})", reason_code="wrong_audience"
        )
    return JwtSvid(
        spiffe_id,
        jws.text,
        named,
        datetime.fromtimestamp(issued, now.tzinfo) if issued is not None else None,
        datetime.fromtimestamp(min(expires, LAST_SECOND), now.tzinfo),
        VerifiedClaims(claims),
    )


def _listed(audience: Sequence[str]) -> str:
    """Audiences for a message, as SPIRE shows them: a few, and not at any length."""
    return f"[{' '.join(quoted(each) for each in audience[:3])}]"


def _subject(jws: UnverifiedJws) -> SpiffeId:
    subject = jws.unverified_claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise InvalidToken("token missing subject claim", reason_code="malformed")
    try:
        return SpiffeId.parse(subject)
    except InvalidSpiffeId as error:
        raise InvalidToken(f"token has an invalid subject claim: {error.public}", reason_code="malformed") from error
