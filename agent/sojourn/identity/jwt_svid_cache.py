"""JWT-SVIDs in use: one for each identity, its claims and audience, served for half of its life, then made anew.

One is served again only while nothing is another than when it was made: the entry, its claims, the audiences in their
order. It is dropped when a key of the authority is tainted or goes, when the wall clock is set, when its entry changes
or goes, and when it, or its entry's or SPIFFE ID's SVIDs, are revoked. So is what is being signed then.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import NamedTuple

import structlog

from sojourn.errors import SojournError, Unavailable
from sojourn.identity.entries import Entry, IdentityKey
from sojourn.identity.signatures import Overtaken, Signature, Signatures, places
from sojourn.identity.svid_signers import JwtSigner
from sojourn.limits import (
    JWT_SIGNATURES_PER_ENTRY,
    JWT_SVIDS_KEPT,
    JWT_SVIDS_KEPT_BYTES,
    JWT_SVIDS_KEPT_PER_ENTRY,
    JWT_SVIDS_KEPT_PER_ENTRY_BYTES,
    NOT_BEFORE_SLACK_SECONDS,
    SIGNATURE_RETRY_MAX_SECONDS,
    SIGNATURE_RETRY_SECONDS,
)
from sojourn.quota.lru import Lru, Recent, Room
from sojourn.runtime.clock import Clock
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid

log = structlog.get_logger()
ALL_AUDIENCES = "*"  # among those that take a JWT-SVID once: there is no other audience
_FAILED_KEPT = 1_000  # of which some may be asked for by whoever asks again at once
_SLACK = timedelta(seconds=NOT_BEFORE_SLACK_SECONDS)
_PAUSE_MIN = timedelta(seconds=SIGNATURE_RETRY_SECONDS)
_PAUSE_MAX = timedelta(seconds=SIGNATURE_RETRY_MAX_SECONDS)


class _Key(NamedTuple):
    """What one is for. All texts: they are hashed and compared faster than what they stand for."""

    entry_id: str
    spiffe_id: str
    claims: str
    audience: tuple[str, ...]
    number: int = 0  # of one for an audience that takes each once: no other caller has it


class _Kept(NamedTuple):
    """One that may be served again to this very entry, from `since` (for a clock that was set back) to its end; from
    `renew_at` on it is made anew first: half of its life, or later if that has failed.
    """

    entry: Entry
    svid: VerifiedJwtSvid
    since: datetime
    renew_at: datetime
    told: bool = False  # the log has that it could not be renewed


class _Failed(NamedTuple):
    """What could not be signed for this very entry. Until `again`, in seconds of the boot clock, it is not tried."""

    entry: Entry
    error: SojournError
    again: float


class JwtSvids:
    """The last JWT-SVID of each identity and audience: JWT_SVIDS_KEPT in all, JWT_SVIDS_KEPT_PER_ENTRY of one entry."""

    def __init__(self, signer: JwtSigner, clock: Clock, each_anew: Collection[str] = ()) -> None:
        """`each_anew`: audiences that take a JWT-SVID once: for them one is made each time, and none is kept. With
        ALL_AUDIENCES none is kept at all.
        """
        self._signer = signer
        self._clock = clock
        self._each_anew = frozenset(each_anew)
        self._kept: Recent[_Key, _Kept] = Recent(
            Room(JWT_SVIDS_KEPT, JWT_SVIDS_KEPT_BYTES), Room(JWT_SVIDS_KEPT_PER_ENTRY, JWT_SVIDS_KEPT_PER_ENTRY_BYTES)
        )
        self._signatures = Signatures[_Key, VerifiedJwtSvid](
            places(),
            self._landed,
            self._not_signed,
            wanted=lambda key: not key.number,
            per_entry=JWT_SIGNATURES_PER_ENTRY,
        )
        self._failed: Lru[_Key, _Failed] = Lru(_FAILED_KEPT)
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._kept)

    def look(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid | None:
        """The JWT-SVID of an entry for these audiences, in their order, that is there and good, or can be made at once;
        None: it has to be waited for.

        Past half of its life it is made anew; if that fails, or has to be waited for, the one at hand is served while
        it is good.
        """
        if ALL_AUDIENCES in self._each_anew or not self._each_anew.isdisjoint(audience):
            return self._signer.at_once(entry, tuple(audience))
        key = _Key(entry.id, str(entry.spiffe_id), entry.jwt_claims.text, tuple(audience))
        kept = self._kept.get(key)
        now = self._clock.now()
        if (
            kept is None
            or (kept.entry is not entry and kept.entry != entry)
            or not kept.since <= now < kept.svid.expires_at
        ):
            return self._issue(key, entry)
        if now < kept.renew_at:
            return kept.svid
        try:
            made = self._issue(key, entry)
            if made is None:
                self._begin(key, entry)
        except Exception as error:  # noqa: BLE001  # logged
            self._not_renewed(key, kept, error, kept.renew_at)
            return kept.svid
        return kept.svid if made is None else made

    async def get(
        self, entries: Sequence[Entry], audience: Sequence[str], again: Callable[[], Awaitable[None]]
    ) -> list[VerifiedJwtSvid]:
        """Those of these entries, and wait for what is not there. `again` looks once more, when all are signed, whether
        the caller may have them, and raises if it may not.

        Raise Unavailable if one cannot be had, or not in time, LimitExceeded if too many are waited for, and Overtaken
        if an entry has changed, or something was revoked, meanwhile.
        """
        audience = tuple(audience)
        with ExitStack() as holding:
            asked = [(entry, self._asked(entry, audience, holding)) for entry in entries]
            for _, signature in asked:
                if signature is not None:
                    await self._signatures.wait(signature)
            await again()
            return [
                self._at_hand(entry, audience) if signature is None else signature.take() for entry, signature in asked
            ]

    def _asked(
        self, entry: Entry, audience: tuple[str, ...], holding: ExitStack
    ) -> Signature[_Key, VerifiedJwtSvid] | None:
        """What is being signed for an entry, and held meanwhile; None: there is one at hand."""
        anew = self._is_anew(audience)
        if not anew and self.look(entry, audience) is not None:
            return None
        number = next(self._numbers) if anew else 0
        key = _Key(entry.id, str(entry.spiffe_id), entry.jwt_claims.text, audience, number)
        failed = self._failed.get(key)
        if failed is not None and failed.entry == entry and self._clock.boot() < failed.again:
            raise failed.error.with_traceback(None)
        return holding.enter_context(self._signatures.held(self._begin(key, entry)))

    def _at_hand(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid:
        svid = self.look(entry, audience)
        if svid is None:  # it has ended, or others have taken its room
            raise Overtaken
        return svid

    def _is_anew(self, audience: Sequence[str]) -> bool:
        return ALL_AUDIENCES in self._each_anew or not self._each_anew.isdisjoint(audience)

    def forget(self) -> None:
        """Drop all: the next ones that are asked for are new."""
        self._kept.clear()
        self._failed.clear()
        self._signatures.give_up(lambda _: True)

    def forget_some(self, which: Callable[[IdentityKey], bool]) -> None:
        """Drop those of some identities."""
        self._kept.drop_if(lambda kept: which(kept.entry.key))
        self._signatures.give_up(lambda entry: which(entry.key))

    def forget_entry(self, entry_id: str) -> None:
        """Drop those of an entry that has changed or is gone."""
        self._kept.drop_owner(entry_id)
        self._signatures.give_up_entry(entry_id)

    def _issue(self, key: _Key, entry: Entry) -> VerifiedJwtSvid | None:
        svid = self._signer.at_once(entry, key.audience)
        if svid is not None:
            self._keep(key, entry, svid)
        return svid

    def _keep(self, key: _Key, entry: Entry, svid: VerifiedJwtSvid) -> None:
        issued = svid.issued_at
        assert issued is not None
        kept = _Kept(entry, svid, issued - _SLACK, issued + (svid.expires_at - issued) / 2)
        self._kept.put(key, kept, entry.id, len(svid.token))
        self._failed.drop(key)

    # --- what has to be waited for ----------------------------------------------------------------------------------

    def _begin(self, key: _Key, entry: Entry) -> Signature[_Key, VerifiedJwtSvid]:
        return self._signatures.begin(key, entry, partial(self._sign, entry, key.audience))

    async def _sign(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid:
        svid = await self._signer.sign(entry, audience)
        # By a key that was tainted meanwhile: the next one signs by now.
        return svid if self._signer.vouches(svid) else await self._signer.sign(entry, audience)

    def _landed(self, signature: Signature[_Key, VerifiedJwtSvid], svid: VerifiedJwtSvid) -> None:
        now = self._clock.now()
        issued = svid.issued_at
        if not self._signer.vouches(svid):
            raise Unavailable("what was signed is by a key that is not to be trusted any more")
        if issued is None or not issued - _SLACK <= now < svid.expires_at:
            raise Unavailable("no JWT-SVID can be issued that is valid now: is the clock right?")
        if not signature.key.number:
            self._keep(signature.key, signature.entry, svid)

    def _not_signed(self, signature: Signature[_Key, VerifiedJwtSvid], error: Exception) -> None:
        """What is at hand is served on, and renewing it is tried again in a while. Whoever waits for a first one is
        told why, and so is who asks for it within a second: those who ask again at once ask nothing of the signer.
        """
        kept = self._kept.get(signature.key)
        if kept is None:
            if not signature.key.number and isinstance(error, SojournError):
                again = self._clock.boot() + SIGNATURE_RETRY_SECONDS
                self._failed.put(signature.key, _Failed(signature.entry, error, again))
            return
        left = kept.svid.expires_at - self._clock.now()
        self._not_renewed(signature.key, kept, error, self._clock.now() + max(_PAUSE_MIN, min(left / 2, _PAUSE_MAX)))

    def _not_renewed(self, key: _Key, kept: _Kept, error: Exception, again: datetime) -> None:
        """Log it: a fault of ours each time, with where it is; what may well be, as a server that is away, once."""
        entry = kept.entry
        spiffe_id = str(entry.spiffe_id)
        if not isinstance(error, SojournError):
            log.error("jwt_svid_not_renewed", entry_id=entry.id, spiffe_id=spiffe_id, exc_info=error)
        elif not kept.told:
            said = {"code": error.code, "reason": error.public, "detail": error.detail}
            log.warning("jwt_svid_not_renewed", entry_id=entry.id, spiffe_id=spiffe_id, **said)
        changed = kept._replace(renew_at=again, told=kept.told or isinstance(error, SojournError))
        if changed != kept:
            self._kept.put(key, changed, entry.id, len(kept.svid.token))
