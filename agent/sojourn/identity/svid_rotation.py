"""SVIDs with keys that are in use: issued at first use, renewed at half of their life while somebody watches."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

import structlog

from sojourn.errors import Unavailable
from sojourn.identity.custom_claims import NO_CLAIMS
from sojourn.identity.entries import Entry, IdentityKey
from sojourn.limits import REISSUED_AT_ONCE, ROTATION_JITTER_SHARE, SVIDS_UNWATCHED_KEPT
from sojourn.quota.lru import Lru
from sojourn.runtime.clock import Alarm, Alarms, Clock
from sojourn.runtime.hooks import Hooks
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.witsvid import WitSvid
from sojourn.spiffe.x509svid import X509Svid

log = structlog.get_logger()
RETRY_SECONDS = 1.0


class Svid(Protocol):
    """What is the same in X.509- and WIT-SVIDs."""

    @property
    def serial(self) -> str: ...
    @property
    def not_before(self) -> datetime: ...
    @property
    def not_after(self) -> datetime: ...


Kind = TypeVar("Kind", bound=Svid)


class X509Issuer(Protocol):
    """What signs X.509-SVIDs."""

    def issue_x509(
        self, spiffe_id: SpiffeId, ttl: timedelta, dns_names: Sequence[str] = (), entry_id: str = ""
    ) -> X509Svid: ...


class WitIssuer(Protocol):
    """What signs WIT-SVIDs."""

    def issue_wit(self, spiffe_id: SpiffeId, ttl: timedelta, entry_id: str = "") -> WitSvid: ...


@dataclass(slots=True)
class CachedSvid(Generic[Kind]):
    """One SVID in use. `rotate_at` is wall time, for people; the alarm runs on the boot clock."""

    entry: Entry
    svid: Kind
    rotate_at: datetime
    alarm: Alarm


class Svids(Generic[Kind]):
    """One SVID for each identity that somebody watches, or watched a while ago: of those SVIDS_UNWATCHED_KEPT."""

    def __init__(
        self,
        sign: Callable[[Entry], Kind],
        clock: Clock,
        alarms: Alarms,
        issued: Callable[[Entry, Kind], None],
    ) -> None:
        """`sign` makes an SVID of an entry; `issued` is told of each: the audit."""
        self._sign = sign
        self._clock = clock
        self._alarms = alarms
        self._issued = issued
        self._kept: dict[IdentityKey, CachedSvid[Kind]] = {}
        self._of_entry: dict[str, set[IdentityKey]] = {}  # the same, by the entry
        self._watchers: dict[IdentityKey, int] = {}  # how many
        self._unwatched: Lru[IdentityKey, bool] = Lru(SVIDS_UNWATCHED_KEPT)  # of those that are kept
        self.on_rotation: Hooks[[IdentityKey]] = Hooks()  # it has a new SVID
        self.on_forget: Hooks[[]] = Hooks()  # an SVID is no longer in use: no copy of its key is to stay

    def get(self, entry: Entry) -> Kind:
        """The SVID of an entry; one is issued if there is none that is good. Raise Unavailable if none can be."""
        if entry.jwt_claims:  # callers that differ in nothing else are the same identity
            entry = replace(entry, jwt_claims=NO_CLAIMS)
        key = entry.key
        kept = self._kept.get(key)
        if kept is None or (kept.entry is not entry and kept.entry != entry):
            return self._issue(entry).svid
        if not self._good(kept.svid):
            kept = self._issue(entry)
            self.on_rotation.tell(key)
        self._unwatched.get(key)  # it is used by that
        return kept.svid

    def watch(self, key: IdentityKey) -> None:
        self._watchers[key] = self._watchers.get(key, 0) + 1
        self._unwatched.drop(key)

    def unwatch(self, key: IdentityKey) -> None:
        left = self._watchers.pop(key) - 1
        if left > 0:
            self._watchers[key] = left
        elif key in self._kept:
            self._leave(key)

    def _leave(self, key: IdentityKey) -> None:
        """Nobody watches this one: without a limit a template whose values change for ever would fill the memory."""
        gone = self._unwatched.put(key, True)
        if gone is not None:
            self.forget(gone[0])

    def forget(self, key: IdentityKey) -> None:
        """Drop the SVID of an identity."""
        kept = self._kept.pop(key, None)
        self._unwatched.drop(key)
        if kept is None:
            return
        others = self._of_entry[key.entry_id]
        others.discard(key)
        if not others:
            del self._of_entry[key.entry_id]
        kept.alarm.cancel()
        self.on_forget.tell()

    def forget_entry(self, entry_id: str) -> None:
        """Drop the SVIDs of an entry that has changed or is gone."""
        for key in list(self._of_entry.get(entry_id, ())):
            self.forget(key)

    async def reissue(self, which: Callable[[CachedSvid[Kind]], bool]) -> int:
        """Replace SVIDs now, whatever they have left, and return how many; those that nobody watches are dropped."""
        found = [key for key, kept in self._kept.items() if which(kept)]
        for place, key in enumerate(found, 1):
            self._rotate(key)
            if place % REISSUED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return len(found)

    def kept(self) -> list[CachedSvid[Kind]]:
        return list(self._kept.values())

    def check_clock(self) -> None:
        """The wall clock was set: renew what is not good by it, and let nothing end before its renewal is due."""
        now, boot = self._clock.now(), self._clock.boot()
        for key, kept in self._kept.items():
            planned = kept.alarm.due - boot
            left = (kept.rotate_at - now).total_seconds() if self._good(kept.svid) else 0.0
            if left < planned:  # never later than planned: a clock that is set back prolongs nothing
                kept.alarm.cancel()
                kept.alarm = self._alarms.after(left, self._rotate, key)
            kept.rotate_at = now + timedelta(seconds=min(left, planned))

    def _good(self, svid: Kind) -> bool:
        return svid.not_before <= self._clock.now() < svid.not_after

    def _issue(self, entry: Entry) -> CachedSvid[Kind]:
        self._alarms.look_at_wall()  # a step must not be taken back unnoticed, once something was signed by it
        svid = self._sign(entry)
        if not self._good(svid):
            raise Unavailable("no SVID can be issued that is valid now: is the clock right?")
        self.forget(entry.key)
        now = self._clock.now()
        life = (svid.not_after - now).total_seconds()
        # Drawn once for each SVID, so that a fleet that started as one does not rotate as one.
        wait = life * (0.5 + random.uniform(-0.5, 0.5) * ROTATION_JITTER_SHARE)  # noqa: S311
        alarm = self._alarms.after(wait, self._rotate, entry.key)
        kept = self._kept[entry.key] = CachedSvid(entry, svid, now + timedelta(seconds=wait), alarm)
        self._of_entry.setdefault(entry.id, set()).add(entry.key)
        if entry.key not in self._watchers:
            self._leave(entry.key)
        self._issued(entry, svid)
        return kept

    def _rotate(self, key: IdentityKey) -> None:
        kept = self._kept.get(key)
        if kept is None:
            return
        kept.alarm.cancel()
        if key not in self._watchers:
            self.forget(key)
            return
        try:
            self._issue(kept.entry)
        except Exception:
            # While the SVID in use is good it is served on; renewing is tried again.
            log.exception("svid_not_rotated", entry_id=key.entry_id, spiffe_id=str(key.spiffe_id))
            kept.alarm = self._alarms.after(RETRY_SECONDS, self._rotate, key)
            if not self._good(kept.svid):
                self.on_rotation.tell(key)  # streams end: they hold what is worth nothing
            return
        self.on_rotation.tell(key)


def x509_signer(issuer: X509Issuer, default_ttl: timedelta) -> Callable[[Entry], X509Svid]:
    """Makes X.509-SVIDs of entries, for so long if they name no TTL."""
    return lambda entry: issuer.issue_x509(
        entry.spiffe_id, timedelta(seconds=entry.x509_svid_ttl) or default_ttl, entry.dns_names, entry.id
    )


def wit_signer(issuer: WitIssuer, default_ttl: timedelta) -> Callable[[Entry], WitSvid]:
    """Makes WIT-SVIDs of entries, which live as long as JWT-SVIDs do."""
    return lambda entry: issuer.issue_wit(
        entry.spiffe_id, timedelta(seconds=entry.jwt_svid_ttl) or default_ttl, entry.id
    )
