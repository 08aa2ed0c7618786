"""DPoP (RFC 9449): proofs that whoever sends a request holds the key that its token is bound to."""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sojourn.errors import InvalidToken
from sojourn.errors.oauth import InvalidProof
from sojourn.jose.jws import PublicKey, SigningKey, UnverifiedJws, numeric_date, parse_unverified
from sojourn.limits import DPOP_AGE_SECONDS, DPOP_JTI_MAX, DPOP_SKEW_SECONDS

TYP: Final = "dpop+jwt"


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that is good but for its being new: `Replays.claim` says that. `jkt` is the key's thumbprint."""

    jkt: str
    jti: str
    issued_at: float  # seconds since the epoch
    nonce: str | None


def make(
    key: SigningKey, *, method: str, url: str, now: datetime, token: str | None = None, nonce: str | None = None
) -> str:
    """Make the proof for one request; `token` is the access token that goes with it, if one does."""
    claims: dict[str, Any] = {
        "jti": secrets.token_urlsafe(16),
        "htm": method,
        "htu": without_query(url),
        "iat": int(now.timestamp()),
    }
    if token is not None:
        claims["ath"] = digest(token)
    if nonce is not None:
        claims["nonce"] = nonce
    return key.sign(claims, typ=TYP, shows_key=True)


def read(text: str, *, method: str, url: str, now: datetime, token: str | None = None) -> Proof:
    """Check a proof for a request; raise InvalidProof. `token` is the access token that came with it, if one did.

    Method and URL are compared byte for byte, the URL without query and fragment.
    """
    try:
        unverified = parse_unverified(text, shows_key=True)
        if unverified.typ != TYP:
            raise InvalidToken("its type is not dpop+jwt", reason_code="wrong_type")
        # A key is known by its thumbprint; what its sender calls it does not matter.
        key = PublicKey.from_jwk({**(unverified.unverified_jwk or {}), "kid": "-"})
        unverified.check_signature(key)
        return _read(unverified, key, method, without_query(url), now, token)
    except InvalidProof:
        raise
    except InvalidToken as error:
        raise _not_good(error.public, error.reason_code, error.detail) from error


def unverified_url(text: str) -> str:
    """The URL that a proof says it is for, without query and fragment; '' if it says none. Nothing is checked."""
    try:
        htu = parse_unverified(text, shows_key=True).unverified_claims.get("htu")
    except InvalidToken:
        return ""
    return without_query(htu) if isinstance(htu, str) else ""


def digest(token: str) -> str:
    """The `ath` of an access token: SHA-256, base64url."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest())[:-1].decode()


def without_query(url: str) -> str:
    """A URL without its query and fragment."""
    return url.partition("#")[0].partition("?")[0]


def _read(unverified: UnverifiedJws, key: PublicKey, method: str, url: str, now: datetime, token: str | None) -> Proof:
    claims = unverified.unverified_claims  # the signature is good, and the claims are the key's owner's
    jti, issued, nonce = claims.get("jti"), numeric_date(claims, "iat"), claims.get("nonce")
    if not isinstance(jti, str) or not 0 < len(jti) <= DPOP_JTI_MAX:
        raise _not_good(f"it has no jti of at most {DPOP_JTI_MAX} characters", "malformed")
    if issued is None or not isinstance(nonce, str | None):
        raise _not_good("it has no iat, or a nonce that is no string", "malformed")
    if claims.get("htm") != method:
        raise _not_good("its htm is not the method of the request", "wrong_method")
    htu = claims.get("htu")
    if not isinstance(htu, str) or without_query(htu) != url:
        raise _not_good("its htu is not the URL of the request", "wrong_url")
    if token is not None and claims.get("ath") != digest(token):
        raise _not_good("its ath is not the digest of the access token", "wrong_token")
    if not now.timestamp() - DPOP_AGE_SECONDS <= issued <= now.timestamp() + DPOP_SKEW_SECONDS:
        raise _not_good("its iat is not of now: make a proof for each request", "not_of_now")
    return Proof(key.thumbprint, jti, issued, nonce)


def _not_good(why: str, code: str, detail: str = "") -> InvalidProof:
    return InvalidProof(f"DPoP proof is not good: {why}", reason_code=code, detail=detail)
