"""SVIDs with keys that are in use: issued at first use, renewed in time, usually at half of their life, while somebody
watches.

Where they have to be waited for, all who ask wait for one signature of an identity, and what is in use is served until
its successor is there.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic

import structlog

from sojourn.errors import SojournError, Unavailable
from sojourn.identity.custom_claims import NO_CLAIMS
from sojourn.identity.entries import Entry, IdentityKey
from sojourn.identity.signatures import Signature, Signatures, places
from sojourn.identity.svid_signers import Kind, Signer
from sojourn.limits import (
    REISSUE_WAIT_SECONDS,
    REISSUED_AT_ONCE,
    ROTATION_JITTER_SHARE,
    SIGNATURE_RETRY_MAX_SECONDS,
    SIGNATURE_RETRY_SECONDS,
    SVIDS_UNWATCHED_KEPT,
)
from sojourn.quota.lru import Lru
from sojourn.runtime.clock import Alarm, Alarms, Clock
from sojourn.runtime.hooks import Hooks

log = structlog.get_logger()
RETRY_SECONDS = 1.0
RETRY_JITTER = 0.25  # by which a pause may be shorter, so that many do not come back as one


@dataclass(slots=True)
class CachedSvid(Generic[Kind]):
    """One SVID in use. `issued_at` and `rotate_at` are wall time, for people; the alarm runs on the boot clock.

    `due`: its successor has to be waited for, and is signed behind whoever uses this one.
    """

    entry: Entry
    svid: Kind
    issued_at: datetime
    rotate_at: datetime
    alarm: Alarm
    due: bool = False


@dataclass(slots=True)
class _Tries:
    """What could not be signed is tried again: when, and after how many seconds."""

    alarm: Alarm
    pause: float


class Svids(Generic[Kind]):
    """One SVID for each identity that somebody watches, or watched a while ago: of those SVIDS_UNWATCHED_KEPT."""

    def __init__(
        self,
        signer: Signer[Kind],
        clock: Clock,
        alarms: Alarms,
        issued: Callable[[Entry, Kind], None],
        *,
        renew_at: float = 0.5,
    ) -> None:
        """`issued`, the audit, is told of each SVID. `renew_at`: the share of its life after which one is renewed."""
        self._renew_at = renew_at
        self._signer = signer
        self._clock = clock
        self._alarms = alarms
        self._issued = issued
        self._kept: dict[IdentityKey, CachedSvid[Kind]] = {}
        self._of_entry: dict[str, set[IdentityKey]] = {}  # the same, by the entry
        self._watchers: dict[IdentityKey, int] = {}  # how many
        self._failing = False  # the last one that was to be issued could not be
        self._waits = False  # the signer has kept somebody waiting: what it has signed is worth more than a moment
        self._unwatched: Lru[IdentityKey, bool] = Lru(SVIDS_UNWATCHED_KEPT)  # of those that are kept
        self._signatures = Signatures[IdentityKey, Kind](places(), self._landed, self._not_signed, wanted=self._wanted)
        self._tries: dict[IdentityKey, _Tries] = {}  # of those that are watched and could not be signed
        self._told: dict[IdentityKey, str] = {}  # the code of what the log has of each, until it succeeds or goes
        self.on_rotation: Hooks[[IdentityKey]] = Hooks()  # it has a new SVID
        self.on_forget: Hooks[[]] = Hooks()  # an SVID is no longer in use: no copy of its key is to stay

    def look(self, entry: Entry) -> Kind | None:
        """The SVID of an entry that is there and good, or can be made at once; None: it has to be waited for.

        Raise Unavailable if none can be.
        """
        if entry.jwt_claims:  # callers that differ in nothing else are the same identity
            entry = replace(entry, jwt_claims=NO_CLAIMS)
        key = entry.key
        kept = self._kept.get(key)
        if kept is None or (kept.entry is not entry and kept.entry != entry):
            kept = self._issue(entry)
            return kept.svid if kept is not None else None
        if not self._good(kept.svid) or not self._signer.vouches(kept.svid):
            kept = self._issue(entry)
            if kept is None:
                return None
            self.on_rotation.tell(key)
        if kept.due:
            self.begin(entry)
        self._unwatched.get(key)  # it is used by that
        return kept.svid

    async def get(self, entry: Entry) -> Kind:
        """The same, and wait for it if need be. Raise Unavailable if it cannot be had, or not in time, and Overtaken if
        its entry has changed, or it was revoked, meanwhile.
        """
        found = self.look(entry)
        return await self._signatures.wait(self._begin(entry)) if found is None else found

    def begin(self, entry: Entry) -> None:
        """Have an SVID signed that has to be waited for. Those who watch are told when it is there."""
        tries = self._tries.get(entry.key)
        if tries is None or tries.alarm.cancelled:  # what could not be signed is tried again in its time
            self._begin(entry)

    def watch(self, key: IdentityKey) -> None:
        self._watchers[key] = self._watchers.get(key, 0) + 1
        self._unwatched.drop(key)

    def unwatch(self, key: IdentityKey) -> None:
        left = self._watchers.pop(key) - 1
        if left > 0:
            self._watchers[key] = left
            return
        self._forget_tries(key)
        kept = self._kept.get(key)
        if kept is None:
            self._told.pop(key, None)
            return
        if kept.due:
            kept.alarm.cancel()
            self._lay_aside(kept)
        self._leave(key)

    def _leave(self, key: IdentityKey) -> None:
        """Nobody watches this one: without a limit a template whose values change for ever would fill the memory."""
        gone = self._unwatched.put(key, True)
        if gone is not None:
            self.forget(gone[0])

    def forget(self, key: IdentityKey) -> None:
        """Drop the SVID of an identity, and what is being signed for it."""
        self._signatures.give_up_identity(key)
        self._forget_tries(key)
        self._drop(key)

    def _drop(self, key: IdentityKey) -> None:
        kept = self._kept.pop(key, None)
        self._told.pop(key, None)
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
        """Drop the SVIDs of an entry that has changed or is gone, and what is being signed for it."""
        self._signatures.give_up_entry(entry_id)
        for key in [key for key in self._tries if key.entry_id == entry_id]:  # few, and none but while signing fails
            self._forget_tries(key)
        for key in list(self._of_entry.get(entry_id, ())):
            self.forget(key)

    def give_up(self, which: Callable[[IdentityKey], bool]) -> None:
        """What is being signed for these identities is not to be given: they were revoked."""
        self._signatures.give_up(lambda entry: which(entry.key))

    async def reissue(self, which: Callable[[CachedSvid[Kind]], bool]) -> int:
        """Replace SVIDs now, whatever they have left, and return how many; those that nobody watches are dropped.

        What has to be waited for is, for REISSUE_WAIT_SECONDS; what takes longer or fails is tried again behind it.
        """
        found = [key for key, kept in self._kept.items() if which(kept)]
        waited = []
        for place, key in enumerate(found, 1):
            self._signatures.give_up_identity(key)  # it was asked for before
            if key in self._watchers:
                self._rotate(key)
            else:
                self.forget(key)
            signature = self._signatures.of(key)
            if signature is not None:
                waited.append(signature.done)
            if place % REISSUED_AT_ONCE == 0:
                await asyncio.sleep(0)
        if waited:
            await asyncio.wait(waited, timeout=REISSUE_WAIT_SECONDS)
        return len(found)

    def kept(self) -> list[CachedSvid[Kind]]:
        return list(self._kept.values())

    def oldest_share(self) -> float:
        """How much of its life that SVID has behind it which has most, of those that somebody watches; 0: there is
        none; 1 or more while none can be issued, since whoever watches goes when an SVID ends. Any thread may ask.
        """
        now = self._clock.now()
        watched = (self._kept.get(key) for key in tuple(self._watchers))
        shares = [_used_share(kept, now) for kept in watched if kept is not None]
        return max(1.0 if self._failing else 0.0, *shares, 0.0)

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

    def _issue(self, entry: Entry) -> CachedSvid[Kind] | None:
        self._alarms.look_at_wall()  # a step must not be taken back unnoticed, once something was signed by it
        try:
            svid = self._signer.at_once(entry)
        except BaseException:
            self._failing = True
            raise
        self._waits = svid is None
        return self._keep(entry, svid) if svid is not None else None

    def _keep(self, entry: Entry, svid: Kind) -> CachedSvid[Kind]:
        self._failing = not self._good(svid)
        if self._failing:
            raise Unavailable("no SVID can be issued that is valid now: is the clock right?")
        self._issued(entry, svid)  # first: what cannot be recorded is nobody's
        self._drop(entry.key)
        now = self._clock.now()
        life = (svid.not_after - now).total_seconds()
        # Drawn once for each SVID, so that a fleet that started as one does not rotate as one.
        wait = life * (self._renew_at + random.uniform(-0.5, 0.5) * ROTATION_JITTER_SHARE)  # noqa: S311
        alarm = self._alarms.after(wait, self._rotate, entry.key)
        kept = self._kept[entry.key] = CachedSvid(entry, svid, now, now + timedelta(seconds=wait), alarm)
        self._of_entry.setdefault(entry.id, set()).add(entry.key)
        if entry.key not in self._watchers:
            self._leave(entry.key)
        return kept

    def _rotate(self, key: IdentityKey) -> None:
        kept = self._kept.get(key)
        if kept is None:
            return
        kept.alarm.cancel()
        if key not in self._watchers:
            self._lay_aside(kept)
            return
        try:
            issued = self._issue(kept.entry)
        except Exception as error:  # noqa: BLE001  # logged
            self._not_rotated(kept, error, self._alarms.after(RETRY_SECONDS, self._rotate, key))
            return
        if issued is None:
            kept.due = True
            self._begin(kept.entry)
        else:
            self.on_rotation.tell(key)

    def _lay_aside(self, kept: CachedSvid[Kind]) -> None:
        """One that is due and that nobody watches: another is made when it is asked for. Where that has to be waited
        for, this one is kept for whoever asks meanwhile, up to its end.
        """
        if self._waits and self._good(kept.svid):
            left = (kept.svid.not_after - self._clock.now()).total_seconds()
            kept.due, kept.alarm = True, self._alarms.after(left, self.forget, kept.entry.key)
        else:
            self.forget(kept.entry.key)

    def _not_rotated(self, kept: CachedSvid[Kind], error: Exception, again: Alarm) -> None:
        """While the SVID in use is good it is served on; renewing is tried again."""
        key, kept.alarm = kept.entry.key, again
        self._tell("svid_not_rotated", key, error)
        if not self._good(kept.svid):
            self.on_rotation.tell(key)  # streams end: they hold what is worth nothing

    def _tell(self, event: str, key: IdentityKey, error: Exception) -> None:
        """Log that there is no new SVID: a fault of ours each time, with where it is; what may well be, as a server
        that is away, once for each identity. An outage meets them all, and each is tried again for as long as it lasts.
        """
        named = {"entry_id": key.entry_id, "spiffe_id": str(key.spiffe_id)}
        if not isinstance(error, SojournError):
            log.error(event, **named, exc_info=error)
        elif self._told.get(key) != error.code:
            self._told[key] = error.code
            log.warning(event, **named, code=error.code, reason=error.public, detail=error.detail)

    # --- what has to be waited for ----------------------------------------------------------------------------------

    def _begin(self, entry: Entry) -> Signature[IdentityKey, Kind]:
        if entry.jwt_claims:
            entry = replace(entry, jwt_claims=NO_CLAIMS)
        return self._signatures.begin(entry.key, entry, lambda: self._sign(entry))

    async def _sign(self, entry: Entry) -> Kind:
        svid = await self._signer.sign(entry)
        # By an authority that was tainted meanwhile: the next one signs by now.
        return svid if self._signer.vouches(svid) else await self._signer.sign(entry)

    def _landed(self, signature: Signature[IdentityKey, Kind], svid: Kind) -> None:
        if not self._signer.vouches(svid):
            raise Unavailable("what was signed is by an authority that is not to be trusted any more")
        self._alarms.look_at_wall()
        self._keep(signature.entry, svid)
        self._forget_tries(signature.key)
        self.on_rotation.tell(signature.key)

    def _not_signed(self, signature: Signature[IdentityKey, Kind], error: Exception) -> None:
        """Try it again for those who watch, after pauses that grow."""
        key, entry, self._failing = signature.key, signature.entry, True
        if not self._wanted(key):
            return
        before = self._tries.get(key)
        pause = SIGNATURE_RETRY_SECONDS if before is None else min(2 * before.pause, SIGNATURE_RETRY_MAX_SECONDS)
        if before is not None:
            before.alarm.cancel()
        wait = pause * random.uniform(1 - RETRY_JITTER, 1.0)  # noqa: S311
        again = self._alarms.after(wait, self._try_again, entry)
        self._tries[key] = _Tries(again, pause)
        kept = self._kept.get(key)
        if kept is not None and key in self._watchers:
            kept.alarm.cancel()
            self._not_rotated(kept, error, again)
        elif before is None:  # each who waits is told; the log is of what goes on behind them
            self._tell("svid_not_signed", key, error)

    def _wanted(self, key: IdentityKey) -> bool:
        """Whether what is signed for an identity is for anybody, although nobody waits."""
        return key in self._watchers or key in self._kept

    def _try_again(self, entry: Entry) -> None:
        if entry.key in self._watchers:
            self._begin(entry)

    def _forget_tries(self, key: IdentityKey) -> None:
        tries = self._tries.pop(key, None)
        if tries is not None:
            tries.alarm.cancel()


def _used_share(kept: CachedSvid[Any], now: datetime) -> float:
    """The share of an SVID's life that is over, from the moment when it was issued."""
    life = (kept.svid.not_after - kept.issued_at).total_seconds()
    return max(0.0, (now - kept.issued_at).total_seconds() / life) if life > 0 else 1.0
