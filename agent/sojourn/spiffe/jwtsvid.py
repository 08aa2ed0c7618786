"""JWT-SVIDs (JWT-SVID.md): what is signed, and when one is good."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sojourn.errors import InvalidInput, InvalidSpiffeId, InvalidToken, quoted
from sojourn.jose.jws import (
    LAST_SECOND,
    PublicKey,
    SigningKey,
    UnverifiedJws,
    VerifiedClaims,
    audiences,
    numeric_date,
    parse_unverified,
)
from sojourn.limits import (
    JWT_LEEWAY_SECONDS,
    JWT_SVIDS_READ_KEPT,
    JWT_SVIDS_READ_KEPT_BYTES,
    JWT_SVIDS_READ_KEPT_PER_ID,
    JWT_SVIDS_READ_KEPT_PER_ID_BYTES,
    JWT_SVIDS_READ_SECONDS,
)
from sojourn.quota.lru import Recent, Room
from sojourn.spiffe.ids import SpiffeId, TrustDomain

TYPES = (None, "JWT", "JOSE")
UNKNOWN_TRUST_DOMAIN = "unknown_trust_domain"
OWN_CLAIMS = frozenset({"sub", "aud", "exp", "iat", "jti", "iss", "nbf"})  # which no claim that is added may replace


@dataclass(frozen=True)
class VerifiedJwtSvid:
    """A JWT-SVID as issued or as verified. `token` is a bearer credential: the repr hides it."""

    spiffe_id: SpiffeId
    token: str
    audience: tuple[str, ...]
    issued_at: datetime | None
    expires_at: datetime
    claims: VerifiedClaims

    def __repr__(self) -> str:
        return f"VerifiedJwtSvid({self.spiffe_id}, aud={list(self.audience)}, exp={self.expires_at.isoformat()})"


def issue(
    key: SigningKey,
    spiffe_id: SpiffeId,
    audience: str | Sequence[str],
    *,
    issued_at: datetime,
    expires_at: datetime,
    issuer: str | None = None,
    more: Mapping[str, Any] | None = None,
    jti: str = "",
) -> VerifiedJwtSvid:
    """Sign a JWT-SVID: `sub`, `aud` (a string if given as one, otherwise a list), `exp`, `iat`, `jti` (random if not
    given), and `iss` if given. `more`: further claims. Raise InvalidInput if one of them is among those above.
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
        "jti": jti or secrets.token_urlsafe(16),
    }
    if issuer:
        claims["iss"] = issuer
    token = key.sign(claims, typ="JWT")
    return VerifiedJwtSvid(spiffe_id, token, audiences_named, issued_at, expires_at, VerifiedClaims(claims))


class _Read(NamedTuple):
    """One whose signature by `key` was good at `at`. `begins`: `nbf` or `iat`, what is later. Seconds, as `expires`."""

    svid: VerifiedJwtSvid
    kid: str
    key: PublicKey
    expires: float
    begins: float
    at: float


class ReadTokens:
    """Remembers the last JWT-SVIDs that were good, each as it was read, and with the key that had signed it.

    It answers for nothing else: at each use the key must be the very one that the bundle has now, which it is not once
    it was revoked or the bundle was replaced, and times and audience are checked. Nothing is remembered of a token that
    was refused. One is read again after JWT_SVIDS_READ_SECONDS, and if the clock was set back behind its reading.
    """

    def __init__(self) -> None:
        self._kept: Recent[str, _Read] = Recent(
            Room(JWT_SVIDS_READ_KEPT, JWT_SVIDS_READ_KEPT_BYTES),
            Room(JWT_SVIDS_READ_KEPT_PER_ID, JWT_SVIDS_READ_KEPT_PER_ID_BYTES),
        )

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, token: str, now: datetime) -> _Read | None:
        known = self._kept.get(token)
        if known is None:
            return None
        seconds = now.timestamp()
        if known.at <= seconds < min(known.at + JWT_SVIDS_READ_SECONDS, known.expires + JWT_LEEWAY_SECONDS):
            return known
        self._kept.drop(token)
        return None

    def keep(self, read: _Read) -> None:
        self._kept.put(read.svid.token, read, str(read.svid.spiffe_id), len(read.svid.token))

    def clear(self) -> None:
        self._kept.clear()


def verify(
    token: str,
    audience: Sequence[str],
    bundles: Mapping[TrustDomain, Mapping[str, PublicKey]],
    now: datetime,
    read: ReadTokens | None = None,
) -> VerifiedJwtSvid:
    """Validate a JWT-SVID (JWT-SVID.md 4) for one of `audience` and return it; raise InvalidToken otherwise.

    The key is looked up by `kid` in the bundle of the trust domain in `sub`, and nowhere else. Times have a leeway of
    JWT_LEEWAY_SECONDS. `read`: those that need not be read again; what it gives is not to be changed.
    """
    known = read.find(token, now) if read is not None else None
    if known is not None and _key(bundles, known.svid.spiffe_id.trust_domain, known.kid) is known.key:
        _check_times(known.expires, known.begins, now)
        _check_audience(known.svid.audience, audience)
        return known.svid
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
    key = _key(bundles, spiffe_id.trust_domain, unverified.kid)
    unverified.check_signature(key)
    claims = unverified.unverified_claims
    not_before, issued = numeric_date(claims, "nbf"), numeric_date(claims, "iat")
    begins = max(not_before or 0.0, issued or 0.0)
    _check_times(expires, begins, now)
    named = audiences(claims)
    _check_audience(named, audience)
    svid = VerifiedJwtSvid(
        spiffe_id,
        token,
        named,
        datetime.fromtimestamp(issued, now.tzinfo) if issued is not None else None,
        datetime.fromtimestamp(min(expires, LAST_SECOND), now.tzinfo),
        VerifiedClaims(claims),
    )
    if read is not None:
        read.keep(_Read(svid, unverified.kid, key, expires, begins, now.timestamp()))
    return svid


def _key(bundles: Mapping[TrustDomain, Mapping[str, PublicKey]], trust_domain: TrustDomain, kid: str) -> PublicKey:
    keys = bundles.get(trust_domain)
    if keys is None:
        raise InvalidToken(
            f"no keys found for trust domain {quoted(trust_domain.name)}", reason_code=UNKNOWN_TRUST_DOMAIN
        )
    key = keys.get(kid)
    if key is None:
        raise InvalidToken(
            f"public key {quoted(kid)} not found in trust domain {quoted(trust_domain.name)}",
            reason_code="unknown_key",
        )
    return key


def _check_times(expires: float, begins: float, now: datetime) -> None:
    """`begins`: `nbf` or `iat`, what is later."""
    seconds = now.timestamp()
    if expires + JWT_LEEWAY_SECONDS <= seconds:
        raise InvalidToken("token has expired", reason_code="expired")
    if begins > seconds + JWT_LEEWAY_SECONDS:
        raise InvalidToken("token is not valid yet", reason_code="not_yet_valid")


def _check_audience(named: Sequence[str], wanted: Sequence[str]) -> None:
    if not any(each in named for each in wanted):
        raise InvalidToken(
            f"expected audience in {_listed(wanted)} (audience={_listed(named)})", reason_code="wrong_audience"
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
