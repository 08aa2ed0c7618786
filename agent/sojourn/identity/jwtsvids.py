"""JWT-SVIDs in use: one for each identity, its claims and audience, served for half of its life, then made anew."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

import structlog

from sojourn.clock import Clock
from sojourn.identity.claims import JwtClaims
from sojourn.identity.entries import Entry, IdentityKey
from sojourn.limits import JWT_SVIDS_KEPT, NOT_BEFORE_SLACK_SECONDS
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jwtsvid import JwtSvid

log = structlog.get_logger()


class JwtIssuer(Protocol):
    """What signs JWT-SVIDs."""

    def issue_jwt(
        self, spiffe_id: SpiffeId, audience: Sequence[str], ttl: timedelta, claims: Mapping[str, Any] | None = None
    ) -> JwtSvid: ...


class _Key(NamedTuple):
    identity: IdentityKey
    claims: JwtClaims
    audience: tuple[str, ...]


class JwtSvids:
    """The last JWT-SVID of each identity and audience, JWT_SVIDS_KEPT in all."""

    def __init__(
        self, issuer: JwtIssuer, clock: Clock, default_ttl: timedelta, each_anew: Collection[str] = ()
    ) -> None:
        """`each_anew`: audiences that take a JWT-SVID once: for them one is made each time, and none is kept."""
        self._issuer = issuer
        self._clock = clock
        self._default_ttl = default_ttl
        self._each_anew = frozenset(each_anew)
        self._kept: OrderedDict[_Key, tuple[Entry, JwtSvid]] = OrderedDict()

    def get(self, entry: Entry, audience: Sequence[str]) -> JwtSvid:
        """The JWT-SVID of an entry for these audiences, in their order.

        Past half of its life it is made anew; if that fails, the one at hand is served while it is good.
        """
        key = _Key(entry.key, entry.jwt_claims, tuple(audience))
        if not self._each_anew.isdisjoint(audience):
            return self._sign(key, entry)
        held, kept = self._kept.get(key, (None, None))
        now = self._clock.now()
        if kept is None or held != entry or not _good(kept, now):
            return self._issue(key, entry)
        if now < _half_life(kept):
            self._kept.move_to_end(key)
            return kept
        try:
            return self._issue(key, entry)
        except Exception:
            log.exception("jwt_svid_not_renewed", entry_id=entry.id, spiffe_id=str(entry.spiffe_id))
            return kept

    def forget(self, which: Callable[[IdentityKey], bool] = lambda _: True) -> None:
        """Drop those of some identities: the next ones that are asked for are new."""
        for key in [key for key in self._kept if which(key.identity)]:
            del self._kept[key]

    def _sign(self, key: _Key, entry: Entry) -> JwtSvid:
        ttl = timedelta(seconds=entry.jwt_svid_ttl) if entry.jwt_svid_ttl else self._default_ttl
        return self._issuer.issue_jwt(entry.spiffe_id, key.audience, ttl, entry.jwt_claims.signable)

    def _issue(self, key: _Key, entry: Entry) -> JwtSvid:
        svid = self._sign(key, entry)
        self._kept[key] = (entry, svid)
        self._kept.move_to_end(key)
        if len(self._kept) > JWT_SVIDS_KEPT:
            self._kept.popitem(last=False)
        return svid


def _good(svid: JwtSvid, now: datetime) -> bool:
    """Whether it can be served: not past its end, and not of a clock that has since been set back."""
    assert svid.issued_at is not None
    return svid.issued_at - timedelta(seconds=NOT_BEFORE_SLACK_SECONDS) <= now < svid.expires_at


def _half_life(svid: JwtSvid) -> datetime:
    assert svid.issued_at is not None
    return svid.issued_at + (svid.expires_at - svid.issued_at) / 2
