"""Security event tokens (RFC 8417): when one is good. What its events mean stands in caep.py.

Each refusal has a code of RFC 8935, 2.4, for the transmitter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sojourn.errors import InvalidEvent, InvalidToken, quoted
from sojourn.jose.canonical_json import digest_of
from sojourn.jose.jws import PublicKey, UnverifiedJws, VerifiedClaims, audiences, numeric_date, parse_unverified
from sojourn.limits import CLAIMS_NESTED_MAX, EVENTS_PER_SIGNAL, JWT_LEEWAY_SECONDS, SIGNAL_JTI_MAX

TYP: Final = "secevent+jwt"
MEDIA_TYPE: Final = "application/secevent+jwt"
ALGORITHMS: Final = frozenset({"ES256", "ES384", "RS256", "PS256"})
INVALID_KEY: Final = "invalid_key"
INVALID_ISSUER: Final = "invalid_issuer"
INVALID_AUDIENCE: Final = "invalid_audience"
AUTHENTICATION_FAILED: Final = "authentication_failed"
ACCESS_DENIED: Final = "access_denied"
_Events = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What one issuer's events must be."""

    issuer: str
    audience: str
    max_age_seconds: float


@dataclass(frozen=True, slots=True)
class UnverifiedEvent:
    """A token that was parsed and not yet believed. `unverified_issuer` says whose keys it must be checked with."""

    jws: UnverifiedJws
    unverified_issuer: str


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """A verified token. `id` is a digest of issuer and `jti`, `digest` one of all claims; both lower-case hex."""

    issuer: str
    id: str
    digest: str
    issued_at: datetime
    events: _Events
    claims: VerifiedClaims = field(repr=False)


def parse_unverified_event(text: str) -> UnverifiedEvent:
    """Read a token as far as it must be read to find its issuer's keys. Raise InvalidEvent."""
    try:
        jws = parse_unverified(text)
    except InvalidToken as error:
        err = INVALID_KEY if error.reason_code == "bad_algorithm" else "invalid_request"
        raise InvalidEvent(f"not a security event token: {error.public}", err=err, detail=error.detail) from error
    if jws.typ != TYP:
        raise InvalidEvent(f"the token's type is {quoted(jws.typ or '')}, not {TYP}")
    if jws.algorithm not in ALGORITHMS:
        raise InvalidEvent(f"the token's algorithm is none of {', '.join(sorted(ALGORITHMS))}", err=INVALID_KEY)
    issuer = jws.unverified_claims.get("iss")
    if not isinstance(issuer, str) or not issuer:
        raise InvalidEvent("the token names no issuer", err=INVALID_ISSUER)
    return UnverifiedEvent(jws, issuer)


def verify(unverified: UnverifiedEvent, rules: Rules, keys: Mapping[str, PublicKey], now: datetime) -> SecurityEvent:
    """Check a token by its issuer's rules and keys, by no other's. Raise InvalidEvent."""
    check_unverified(unverified, rules, now)
    key = keys.get(unverified.jws.kid or "")
    if key is None:
        raise InvalidEvent("the token names no key of its issuer", err=INVALID_KEY)
    if not key.fits(unverified.jws.algorithm):
        raise InvalidEvent("the token's algorithm does not fit its key", err=INVALID_KEY)
    try:
        unverified.jws.check_signature(key)
    except InvalidToken as error:
        err = AUTHENTICATION_FAILED if error.reason_code == "bad_signature" else "invalid_request"
        raise InvalidEvent(error.public, err=err, detail=error.detail) from error
    claims = VerifiedClaims(unverified.jws.unverified_claims)
    issued_at, events = _read(claims, rules, now)
    return SecurityEvent(
        rules.issuer, digest_of([rules.issuer, _jti(claims)]), digest_of(claims), issued_at, events, claims
    )


def check_unverified(unverified: UnverifiedEvent, rules: Rules, now: datetime) -> None:
    """Raise InvalidEvent for a token that is no good event, whatever key has signed it."""
    if unverified.unverified_issuer != rules.issuer:
        raise InvalidEvent("the token's issuer is none that this agent hears", err=INVALID_ISSUER)
    _read(unverified.jws.unverified_claims, rules, now)


def _read(claims: Mapping[str, Any], rules: Rules, now: datetime) -> tuple[datetime, _Events]:
    """When the token was issued, and its events. Raise InvalidEvent."""
    try:
        if audiences(claims) != (rules.audience,):
            raise InvalidEvent("the token is not for this agent, or for others too", err=INVALID_AUDIENCE)
        issued = numeric_date(claims, "iat")
    except InvalidToken as error:
        raise InvalidEvent(error.public, detail=error.detail) from error
    _check_shape(claims)
    _jti(claims)
    return _issued_at(issued, rules, now), _events(claims)


def _check_shape(claims: Mapping[str, Any]) -> None:
    if _deeper_than(claims, CLAIMS_NESTED_MAX):
        raise InvalidEvent(f"the token's claims are nested deeper than {CLAIMS_NESTED_MAX}")
    for name in ("sub", "exp"):  # so that no event can pass for an access token, nor the other way round
        if name in claims:
            raise InvalidEvent(f"the token has the claim {name}, which an event must not have")


def _jti(claims: Mapping[str, Any]) -> str:
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= SIGNAL_JTI_MAX:
        raise InvalidEvent(f"the token's jti is not a text of 1 to {SIGNAL_JTI_MAX} characters")
    return jti


def _issued_at(issued: float | None, rules: Rules, now: datetime) -> datetime:
    if issued is None:
        raise InvalidEvent("the token lacks iat")
    if issued < now.timestamp() - rules.max_age_seconds:
        raise InvalidEvent(f"the token is older than {rules.max_age_seconds:g} seconds")
    check_not_ahead(issued, now, "the token's iat")
    return datetime.fromtimestamp(issued, UTC)


def check_not_ahead(seconds: float, now: datetime, what: str) -> None:
    """Raise InvalidEvent if a time of the issuer's is in the future."""
    if seconds > now.timestamp() + JWT_LEEWAY_SECONDS:
        raise InvalidEvent(f"{what} is in the future")


def _events(claims: Mapping[str, Any]) -> _Events:
    events = claims.get("events")
    if not isinstance(events, dict) or not events or not all(isinstance(each, dict) for each in events.values()):
        raise InvalidEvent("the token's events are not an object with an object for each event")
    if len(events) > EVENTS_PER_SIGNAL:
        raise InvalidEvent(f"the token has more than {EVENTS_PER_SIGNAL} events")
    return events


def _deeper_than(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper_than(each, levels - 1) for each in inner)
