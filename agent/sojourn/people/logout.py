"""Logout tokens (OpenID Connect Back-Channel Logout 1.0, 2.4 and 2.6): which one is good, and whose logout it says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sojourn.errors import InvalidToken
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import PublicKey, UnverifiedJws, VerifiedClaims, audiences, numeric_date
from sojourn.limits import JWT_LEEWAY_SECONDS, LOGOUT_TOKEN_AGE_SECONDS
from sojourn.people.claims import malformed, subject_of, text_of
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.verification import check_signature

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_OURS: Final = "logout token"
_TYPES: Final = frozenset({None, "JWT", "logout+jwt", "application/logout+jwt"})


@dataclass(frozen=True, slots=True)
class Logout:
    """Somebody has logged out: of a session, or of all without one. `at` is when the token says so, since the epoch."""

    session: str
    subject: str
    at: int
    jti: str


def verify_logout(unverified: UnverifiedJws, rules: IssuerRules, key: PublicKey | None, now: datetime) -> Logout:
    """Check a logout token by its issuer's rules and key. Raise PersonRefused or InvalidToken."""
    check_unverified_logout(unverified, rules, now)
    check_signature(unverified, rules, key)
    return _read(unverified.typ, VerifiedClaims(unverified.unverified_claims), rules, now)


def check_unverified_logout(unverified: UnverifiedJws, rules: IssuerRules, now: datetime) -> None:
    """Raise PersonRefused or InvalidToken for a token that is no good logout token, whatever key has signed it."""
    _read(unverified.typ, unverified.unverified_claims, rules, now)


def _read(typ: str | None, claims: Mapping[str, Any], rules: IssuerRules, now: datetime) -> Logout:
    if claims.get("iss") != rules.url:
        raise PersonRefused("unknown_issuer", "the logout token is of another issuer")
    _check_kind(typ, claims)
    if rules.audiences.isdisjoint(audiences(claims)):
        raise InvalidToken("the logout token is for no client of a presenter", reason_code="wrong_audience")
    at = _check_times(claims, now.timestamp())
    session, subject, jti = (text_of(claims, name, _OURS) for name in ("sid", "sub", "jti"))
    if not jti or not (session or subject):
        raise malformed(_OURS, "lacks jti, or both sid and sub")
    return Logout(session, subject and subject_of(subject, _OURS), at, jti)


def _check_kind(typ: str | None, claims: Mapping[str, Any]) -> None:
    """Raise unless it is a logout token, and nothing else that an issuer signs for the same client."""
    if typ not in _TYPES or claims.get("events") != {EVENT: {}}:
        raise PersonRefused("wrong_kind", "the token is no logout token")
    if claims.get("typ", "Logout") != "Logout" or "token_use" in claims:  # what Keycloak and Cognito say themselves
        raise PersonRefused("wrong_kind", "the token says that it is another than a logout token")
    if "nonce" in claims:
        raise PersonRefused("wrong_kind", "the token has a nonce, which a logout token must not have")


def _check_times(claims: Mapping[str, Any], now: float) -> int:
    """When it was issued. Raise InvalidToken unless that is a short while ago, and it has not ended."""
    issued, expires = numeric_date(claims, "iat"), numeric_date(claims, "exp")
    if issued is None:
        raise malformed(_OURS, "lacks iat")
    if expires is not None and expires <= now:
        raise InvalidToken("the logout token has expired", reason_code="expired")
    if issued < now - LOGOUT_TOKEN_AGE_SECONDS:
        raise InvalidToken("the logout token is too old: compare the issuer's clock", reason_code="expired")
    if issued > now + JWT_LEEWAY_SECONDS:
        raise InvalidToken("the logout token is of the future: compare the issuer's clock", reason_code="not_yet_valid")
    return int(issued)
