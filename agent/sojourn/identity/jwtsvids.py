"""JWT-SVIDs in use: one for each entry and audience, served until it has half of its life left, then made anew."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from sojourn.clock import Clock
from sojourn.identity.entries import Entry
from sojourn.limits import JWT_SVIDS_KEPT, NOT_BEFORE_SLACK_SECONDS
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jwtsvid import JwtSvid

log = structlog.get_logger()


class JwtIssuer(Protocol):
    """What signs JWT-SVIDs."""

    def issue_jwt(self, spiffe_id: SpiffeId, audience: Sequence[str], ttl: timedelta) -> JwtSvid: ...


class JwtSvids:
    """The last JWT-SVID of each entry and audience, JWT_SVIDS_KEPT in all."""

    def __init__(
        self, issuer: JwtIssuer, clock: Clock, default_ttl: timedelta, each_anew: Collection[str] = ()
    ) -> None:
        """`each_anew`: audiences that take a JWT-SVID once: for them one is made each time, and none is kept."""
        self._issuer = issuer
        self._clock = clock
        self._default_ttl = default_ttl
        self._each_anew = frozenset(each_anew)
        self._kept: OrderedDict[tuple[str, tuple[str, ...]], tuple[Entry, JwtSvid]] = OrderedDict()

    def get(self, entry: Entry, audience: Sequence[str]) -> JwtSvid:
        """The JWT-SVID of an entry for these audiences, in their order.

        Past half of its life it is made anew; if that fails, the one at hand is served while it is good.
        """
        key = (entry.id, tuple(audience))
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

    def forget(self, entry_ids: Collection[str] | None = None) -> None:
        """Drop those of these entries, or all: the next ones that are asked for are new."""
        for key in [key for key in self._kept if entry_ids is None or key[0] in entry_ids]:
            del self._kept[key]

    def _sign(self, key: tuple[str, tuple[str, ...]], entry: Entry) -> JwtSvid:
        ttl = timedelta(seconds=entry.jwt_svid_ttl) if entry.jwt_svid_ttl else self._default_ttl
        return self._issuer.issue_jwt(entry.spiffe_id, key[1], ttl)

    def _issue(self, key: tuple[str, tuple[str, ...]], entry: Entry) -> JwtSvid:
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
