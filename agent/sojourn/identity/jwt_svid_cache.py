"""JWT-SVIDs in use: one for each identity, its claims and audience, served for half of its life, then made anew.

One is served again only while nothing is another than when it was made: the entry, its claims, the audiences in their
order. It is dropped when a key of the authority is tainted or goes, when the wall clock is set, when its entry changes
or goes, and when it, or its entry's or SPIFFE ID's SVIDs, are revoked.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

import structlog

from sojourn.identity.entries import Entry, IdentityKey
from sojourn.limits import (
    JWT_SVIDS_KEPT,
    JWT_SVIDS_KEPT_BYTES,
    JWT_SVIDS_KEPT_PER_ENTRY,
    JWT_SVIDS_KEPT_PER_ENTRY_BYTES,
    NOT_BEFORE_SLACK_SECONDS,
)
from sojourn.quota.lru import Recent, Room
from sojourn.runtime.clock import Clock
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid

log = structlog.get_logger()
ALL_AUDIENCES = "*"  # among those that take a JWT-SVID once: there is no other audience
_SLACK = timedelta(seconds=NOT_BEFORE_SLACK_SECONDS)


class JwtIssuer(Protocol):
    """What signs JWT-SVIDs."""

    def issue_jwt(
        self,
        spiffe_id: SpiffeId,
        audience: Sequence[str],
        ttl: timedelta,
        claims: Mapping[str, Any] | None = None,
        entry_id: str = "",
    ) -> VerifiedJwtSvid: ...


class _Key(NamedTuple):
    """What one is for. All texts: they are hashed and compared faster than what they stand for."""

    entry_id: str
    spiffe_id: str
    claims: str
    audience: tuple[str, ...]


class _Kept(NamedTuple):
    """One that may be served again to this very entry, from `since` (for a clock that was set back) to `half_life`."""

    entry: Entry
    svid: VerifiedJwtSvid
    since: datetime
    half_life: datetime


class JwtSvids:
    """The last JWT-SVID of each identity and audience: JWT_SVIDS_KEPT in all, JWT_SVIDS_KEPT_PER_ENTRY of one entry."""

    def __init__(
        self, issuer: JwtIssuer, clock: Clock, default_ttl: timedelta, each_anew: Collection[str] = ()
    ) -> None:
        """`each_anew`: audiences that take a JWT-SVID once: for them one is made each time, and none is kept. With
        ALL_AUDIENCES none is kept at all.
        """
        self._issuer = issuer
        self._clock = clock
        self._default_ttl = default_ttl
        self._each_anew = frozenset(each_anew)
        self._kept: Recent[_Key, _Kept] = Recent(
            Room(JWT_SVIDS_KEPT, JWT_SVIDS_KEPT_BYTES), Room(JWT_SVIDS_KEPT_PER_ENTRY, JWT_SVIDS_KEPT_PER_ENTRY_BYTES)
        )

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid:
        """The JWT-SVID of an entry for these audiences, in their order.

        Past half of its life it is made anew; if that fails, the one at hand is served while it is good.
        """
        if ALL_AUDIENCES in self._each_anew or not self._each_anew.isdisjoint(audience):
            return self._sign(entry, tuple(audience))
        key = _Key(entry.id, str(entry.spiffe_id), entry.jwt_claims.text, tuple(audience))
        kept = self._kept.get(key)
        now = self._clock.now()
        if (
            kept is None
            or (kept.entry is not entry and kept.entry != entry)
            or not kept.since <= now < kept.svid.expires_at
        ):
            return self._issue(key, entry)
        if now < kept.half_life:
            return kept.svid
        try:
            return self._issue(key, entry)
        except Exception:
            log.exception("jwt_svid_not_renewed", entry_id=entry.id, spiffe_id=str(entry.spiffe_id))
            return kept.svid

    def forget(self) -> None:
        """Drop all: the next ones that are asked for are new."""
        self._kept.clear()

    def forget_some(self, which: Callable[[IdentityKey], bool]) -> None:
        """Drop those of some identities."""
        self._kept.drop_if(lambda kept: which(kept.entry.key))

    def forget_entry(self, entry_id: str) -> None:
        """Drop those of an entry that has changed or is gone."""
        self._kept.drop_owner(entry_id)

    def _sign(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid:
        ttl = timedelta(seconds=entry.jwt_svid_ttl) or self._default_ttl
        return self._issuer.issue_jwt(entry.spiffe_id, audience, ttl, entry.jwt_claims.signable, entry.id)

    def _issue(self, key: _Key, entry: Entry) -> VerifiedJwtSvid:
        svid = self._sign(entry, key.audience)
        issued = svid.issued_at
        assert issued is not None
        kept = _Kept(entry, svid, issued - _SLACK, issued + (svid.expires_at - issued) / 2)
        self._kept.put(key, kept, entry.id, len(svid.token))
        return svid
