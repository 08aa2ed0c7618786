"""SVIDs that are revoked before their end: the deny list, and the lists (CRLs) that go out on the streams.

An identity is revoked by one row: whatever was issued for it before is no longer good, however much that is, and what
it is given from then on is. Single SVIDs have a row each. What is taken away is so at once; it is written then, again
and again until it is on disk. Rows are forgotten once two things hold: the agent has run for longer since than any SVID
lives, so that a wall clock that stands ahead for a while takes nothing from the list; and what is revoked has ended by
the wall clock, which may have stood ahead when it was issued.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from typing import Protocol

import structlog

from sojourn.audit.journal import Event
from sojourn.authority import svid_stamps
from sojourn.authority.crl import RevokedLeaf
from sojourn.errors import InvalidToken, LimitExceeded, SojournError
from sojourn.errors.oauth import NotOnDisk
from sojourn.identity.issued_svids import JWT, X509, IssuedSvid
from sojourn.identity.revocation_list import ENTRY, RevocationStore, Revoked, RevokedIdentity, RevokedSvid, Watch
from sojourn.limits import (
    REVOCATION_ROWS,
    REVOCATIONS_KEPT_SECONDS,
    REVOKED_IDENTITIES,
    REVOKED_SVIDS,
    SVID_TTL_MAX_SECONDS,
)
from sojourn.runtime.background import Background, Retry
from sojourn.runtime.clock import Alarms, Clock
from sojourn.runtime.hooks import Hooks
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid

log = structlog.get_logger()
LOOK_SECONDS = 3_600.0
RETRY_SECONDS = 1.0
UNSETTLED_SECONDS = 30.0  # for the ends of tasks to be on disk; the row is written then, whatever became of its caller
SIGN_AGAIN = timedelta(days=1)
CLOCK_SLACK_SECONDS = 86_400  # of the latest wall time: it is written down when it has gone on by half as much
ENDED_SLACK_SECONDS = 86_400  # for which a leaf stays on the lists that go out, for verifiers whose clock runs behind


class CrlSigner(Protocol):
    """What signs lists of revoked leaves, and whatever may be revoked."""

    order: int
    stamps: bool  # whether what it signs says by `order` when that was

    def sign_crls(self, revoked: Iterable[RevokedLeaf]) -> tuple[bytes, ...]: ...


class Revocations:
    """The deny list. `crls` are DER, and empty while no X.509-SVID is on it."""

    def __init__(
        self, store: RevocationStore, signer: CrlSigner, clock: Clock, alarms: Alarms, *, epoch: int = 1
    ) -> None:
        """`epoch`: the number of this start of the agent, greater than that of any before."""
        self.svids_max = REVOKED_SVIDS  # single ones that the list has room for
        self._store = store
        self._signer = signer
        self._clock = clock
        self._alarms = alarms
        self.on_change: Hooks[[]] = Hooks()  # of the CRLs, or of whom connections may be with
        self.on_revoked: Hooks[[Sequence[RevokedSvid]]] = Hooks()  # as soon as they are no longer good, not yet on disk
        kept = store.load()
        self._svids, self._svids_from = {each.key: each for each in kept.svids}, kept.svids_from
        self._identities: dict[tuple[str, str], RevokedIdentity] = {}
        self._orders: dict[str | bytes, int] = {}  # by SPIFFE ID, or by the mark of an entry: what is older is revoked
        for identity in kept.identities:
            self._hold(identity)
        self._watch, self._latest_kept = Watch(clock, kept.times), kept.times.latest
        self._last_order = svid_stamps.first_order(epoch + 1) - 1
        signer.order = max([svid_stamps.first_order(epoch), *(each.order for each in kept.identities)])
        self._unwritten: dict[tuple[str, str], Revoked] = {}
        self._events: list[Event] = []  # that go with those
        self._writing = asyncio.Lock()
        self._background = Background("revocations_not_written")
        self._again = Retry(alarms, self._background, RETRY_SECONDS, self._write_behind)
        self._signed_at = clock.now()
        self.crls: tuple[bytes, ...] = ()
        self._sign()
        alarms.after(0.0, self._remember)
        alarms.after(LOOK_SECONDS, self._look)
        alarms.on_step(self.sign_again)

    def __len__(self) -> int:
        return len(self._svids) + len(self._identities)

    # --- asking -----------------------------------------------------------------------------------------------------

    def svids(self) -> list[RevokedSvid]:
        """Those that were revoked one by one and have not ended, the last revoked first."""
        now = self._clock.now().timestamp()
        alive = [each for each in self._svids.values() if not each.whole and each.svid.expires_at > now]
        return sorted(alive, key=lambda each: (-each.revoked_at, each.svid.spiffe_id, each.svid.id))

    def identities(self) -> list[RevokedIdentity]:
        """Those of which something that is revoked may not have ended, the last revoked first."""
        return sorted(self._identities.values(), key=lambda each: (-each.order, each.kind, each.name))

    def check(self, svid: VerifiedJwtSvid) -> VerifiedJwtSvid:
        """Return a JWT-SVID that is not revoked. Raise InvalidToken."""
        jti = svid.claims.get("jti")
        if self.denies(JWT, jti if isinstance(jti, str) else "", svid.spiffe_id):
            raise InvalidToken("token was revoked", reason_code="revoked")
        return svid

    def denies(self, kind: str, svid_id: str, spiffe_id: SpiffeId | None) -> bool:
        """Whether an SVID with this SPIFFE ID is revoked, or an identity that it is of."""
        if (kind, svid_id) in self._svids:
            return True
        if not self._orders and self._svids_from == svid_stamps.OLDEST:
            return False
        stamp = svid_stamps.of_serial(svid_id) if kind == X509 else svid_stamps.of_jti(svid_id)
        latest = max(
            self._orders.get(str(spiffe_id), svid_stamps.OLDEST - 1), self._orders.get(stamp.entry, svid_stamps.OLDEST)
        )
        return stamp.order < max(latest, self._svids_from) and (stamp.order > svid_stamps.OLDEST or self._signer.stamps)

    def is_written(self, revoked: Revoked) -> bool:
        """Whether it is on disk."""
        return revoked.key not in self._unwritten

    # --- revoking ---------------------------------------------------------------------------------------------------

    async def revoke(self, svids: Sequence[IssuedSvid], events: Sequence[Event] = ()) -> list[RevokedSvid]:
        """Put single SVIDs on the list and return those that were not on it. When this returns, it is durable and in
        force. `events`: the audit records that go with it. Raise LimitExceeded, or NotOnDisk if it is in force alone.
        """
        fresh = [self._revoked(svid) for svid in svids if (svid.kind, svid.id) not in self._svids]
        self._check_room(fresh)
        self._put(fresh)
        self.on_revoked.tell(fresh)
        if any(each.svid.kind == X509 for each in fresh):
            self._sign()
            self.on_change.tell()
        await self._written(events)
        return fresh

    def next_identity(self, kind: str, name: str) -> RevokedIdentity:
        """All that an entry, or a SPIFFE ID, was ever given; `put_identity` revokes it. What is signed from now on is
        not of it. Raise LimitExceeded: nothing was taken away.
        """
        if not self._has_room(kind, name) and self._oldest() is None:
            raise LimitExceeded(f"more than {REVOKED_IDENTITIES} identities would be revoked at once")
        if self._signer.order >= self._last_order:
            raise LimitExceeded("too many identities were revoked since the start: restart the agent")
        self._signer.order += 1
        now, times = int(self._clock.now().timestamp()), self._watch.look()
        ends_by = times.latest + SVID_TTL_MAX_SECONDS + CLOCK_SLACK_SECONDS
        return RevokedIdentity(kind, name, self._signer.order, now, times.ran, ends_by=ends_by)

    def put_identity(self, identity: RevokedIdentity, in_use: Sequence[IssuedSvid] = ()) -> None:
        """Revoke an identity, as one row, from now on. It is not on disk yet: `settle` writes it.

        `in_use`: X.509-SVIDs of it that are known of.
        """
        if not self._has_room(*identity.key) and (oldest := self._oldest()) is not None:
            self._forget([oldest])
            self._background.run(self._quietly(self._drop([oldest])))
        if (before := self._identities.get(identity.key)) is not None:
            latest = max(identity, before, key=lambda each: each.order)  # they may come in another order
            identity = replace(latest, x509_svids=before.x509_svids, left_out=before.left_out)
        self._hold(identity)
        self._unwritten[identity.key] = identity
        self._alarms.after(UNSETTLED_SECONDS, self._again.ask)
        self._list(identity, in_use)
        self._sign()
        self.on_change.tell()

    async def settle(
        self,
        identity: RevokedIdentity,
        find: Callable[[], Awaitable[Sequence[IssuedSvid]]],
        event: Callable[[RevokedIdentity], Event],
    ) -> RevokedIdentity:
        """Name what else is found of a revoked identity's X.509-SVIDs on the lists that go out, and write all of it
        with the audit record that `event` makes. Return what is revoked as it is then.

        Raise NotOnDisk if it is in force alone.
        """
        try:
            await self._list_found(identity, find)
            now = self._identities.get(identity.key, identity)
            await self._written([event(now)])
        except BaseException:
            self._again.ask()
            raise
        return now

    async def _list_found(self, identity: RevokedIdentity, find: Callable[[], Awaitable[Sequence[IssuedSvid]]]) -> None:
        try:
            found = [each for each in await find() if each.kind == X509]
        except SojournError as error:
            log.error("revoked_svids_not_found", reason=error.public, detail=error.detail, spiffe_id=identity.name)
            return
        if self._list(identity, found):
            self._sign()
            self.on_change.tell()

    def of_identity(self, identity: RevokedIdentity) -> list[RevokedSvid]:
        """Its X.509-SVIDs that are on the lists that go out and have not ended."""
        now = self._clock.now().timestamp()
        field = "entry_id" if identity.kind == ENTRY else "spiffe_id"
        return [
            each
            for each in self._svids.values()
            if each.whole and each.svid.expires_at > now and getattr(each.svid, field) == identity.name
        ]

    def _revoked(self, svid: IssuedSvid, *, whole: bool = False) -> RevokedSvid:
        return RevokedSvid(svid, int(self._clock.now().timestamp()), self._watch.ran, whole)

    def _hold(self, identity: RevokedIdentity) -> None:
        self._identities[identity.key] = identity
        mark: str | bytes = svid_stamps.entry_mark(identity.name) if identity.kind == ENTRY else identity.name
        self._orders[mark] = max(identity.order, self._orders.get(mark, svid_stamps.OLDEST))

    def _has_room(self, kind: str, name: str) -> bool:
        return (kind, name) in self._identities or len(self._identities) < REVOKED_IDENTITIES

    def _oldest(self) -> RevokedIdentity | None:
        """The one that makes room for others: revoked long ago, and kept since the wall clock once stood ahead."""
        return min(filter(self._has_run_since, self._identities.values()), key=lambda each: each.order, default=None)

    def _put(self, fresh: Sequence[RevokedSvid]) -> None:
        for each in fresh:
            self._svids[each.key] = self._unwritten[each.key] = each

    def _list(self, identity: RevokedIdentity, svids: Sequence[IssuedSvid]) -> bool:
        """Put an identity's X.509-SVIDs on the list, for half of the room that is left at most: another's must have
        some, too. Those that end last come first. Return whether there were any.
        """
        unlisted = [
            each
            for each in svids
            if (X509, each.id) not in self._svids and svid_stamps.of_serial(each.id).order < identity.order
        ]
        latest = sorted(unlisted, key=lambda each: -each.expires_at)
        room = (self.svids_max - self._alive(X509)) // 2
        fresh = [self._revoked(each, whole=True) for each in latest[: max(0, room)]]
        now = self._identities[identity.key]
        left_out = max(now.left_out, len(latest)) - len(fresh)  # what was left out is among those that are found again
        self._identities[identity.key] = self._unwritten[identity.key] = replace(
            now, x509_svids=now.x509_svids + len(fresh), left_out=max(0, left_out)
        )
        self._put(fresh)
        self._forget_some()
        return bool(fresh)

    def _check_room(self, fresh: Sequence[RevokedSvid]) -> None:
        for kind in {each.svid.kind for each in fresh}:
            if self._alive(kind) + sum(each.svid.kind == kind for each in fresh) > self.svids_max:
                many = f"more than {self.svids_max} SVIDs would be on the list"
                raise LimitExceeded(f"{many}: revoke the identity, by --spiffe-id")

    def _alive(self, kind: str) -> int:
        """How many SVIDs are on the list that have not ended: what has ended takes no room."""
        now = self._clock.now().timestamp()
        return sum(each.svid.kind == kind and each.svid.expires_at > now for each in self._svids.values())

    # --- writing ----------------------------------------------------------------------------------------------------

    async def _written(self, events: Sequence[Event]) -> None:
        """Return when all that is revoked is on disk, also what could not be written before."""
        self._events += events
        try:
            await asyncio.shield(self._background.run(self._write()))
        except SojournError as error:
            raise NotOnDisk(
                f"it is revoked, and that is not on disk yet: {error.public}; it is tried again until the agent stops",
                detail=error.detail,
            ) from error

    async def _write(self) -> None:
        async with self._writing:
            revoked, events = dict(self._unwritten), list(self._events)
            if not revoked and not events:
                return
            times = self._watch.look()
            try:
                await self._store.put(list(revoked.values()), events, times)
            except BaseException:
                self._again.ask()
                raise
            self._latest_kept = times.latest
            del self._events[: len(events)]
            for key, each in revoked.items():
                if self._unwritten.get(key) is each:
                    del self._unwritten[key]

    async def _write_behind(self) -> None:
        """Write what is not on disk, however often that must be tried."""
        await self._quietly(self._write())

    async def _quietly(self, work: Awaitable[None]) -> None:
        try:
            await work
        except SojournError as error:
            log.error("revocations_not_written", reason=error.public, detail=error.detail, waiting=len(self._unwritten))

    async def close(self) -> None:
        """The agent stops: write what is not on disk, if that can be."""
        await self._quietly(self._write() if self._unwritten or self._events else self._drop(()))
        await self._background.quiet()

    # --- lists that go out, and the end -----------------------------------------------------------------------------

    def _sign(self) -> None:
        listed_from = self._clock.now().timestamp() - ENDED_SLACK_SECONDS
        listed = [
            each for each in self._svids.values() if each.svid.kind == X509 and each.svid.expires_at > listed_from
        ]
        if len(listed) > self.svids_max:  # those that have not ended, and the latest that have
            listed = nlargest(self.svids_max, listed, key=lambda each: each.svid.expires_at)
        leaves = [
            RevokedLeaf(
                int(each.svid.id, 16),
                each.svid.issuer_id,
                each.svid.root_id,
                datetime.fromtimestamp(each.revoked_at, UTC),
            )
            for each in listed
        ]
        self.crls = self._signer.sign_crls(leaves)
        self._signed_at = self._clock.now()

    def sign_again(self) -> None:
        """The wall clock was set, or a list was waited for: those that go out are to be what they would be now."""
        self._remember()
        if self._svids:
            self._sign()
            self.on_change.tell()

    def _look(self) -> None:
        """Forget what has ended for sure, and sign the lists anew before verifiers would find them too old."""
        self._alarms.after(LOOK_SECONDS, self._look)
        if not self._svids and not self._identities:
            self._remember()
            return
        known: list[Revoked] = [*self._svids.values(), *self._identities.values()]
        gone = [each for each in known if self._is_over(each)]
        self._forget(gone)
        self._background.run(self._quietly(self._drop(gone)))
        if gone or (self.crls and abs(self._clock.now() - self._signed_at) > SIGN_AGAIN):
            self._sign()
            self.on_change.tell()

    def _remember(self) -> None:
        """Write down the latest wall time, if it has gone on far since that was done."""
        if self._watch.look().latest - self._latest_kept > CLOCK_SLACK_SECONDS // 2:
            self._background.run(self._quietly(self._drop(())))

    async def _drop(self, gone: Sequence[Revoked]) -> None:
        times = self._watch.look()
        await self._store.drop(gone, times)
        self._latest_kept = times.latest

    def _is_over(self, revoked: Revoked) -> bool:
        ended = revoked.svid.expires_at + ENDED_SLACK_SECONDS if isinstance(revoked, RevokedSvid) else revoked.ends_by
        return self._has_run_since(revoked) and ended <= self._clock.now().timestamp()

    def _has_run_since(self, revoked: Revoked) -> bool:
        return revoked.ran + REVOCATIONS_KEPT_SECONDS <= self._watch.ran and self.is_written(revoked)

    def _forget(self, gone: Sequence[Revoked]) -> None:
        for each in gone:
            if isinstance(each, RevokedSvid):
                del self._svids[each.key]
                continue
            del self._identities[each.key]
            self._orders.pop(svid_stamps.entry_mark(each.name) if each.kind == ENTRY else each.name, None)

    def _forget_some(self) -> None:
        """Leave REVOCATION_ROWS of those SVIDs that have ended by the wall clock and were revoked with their identity.

        The identity is revoked all the same.
        """
        over = len(self._svids) - REVOCATION_ROWS
        if over <= 0:
            return
        now = self._clock.now().timestamp() - ENDED_SLACK_SECONDS
        ended = [each for each in self._svids.values() if each.whole and each.svid.expires_at <= now]
        gone = sorted(ended, key=lambda each: each.svid.expires_at)[:over]
        self._forget(gone)
        for each in gone:
            self._unwritten.pop(each.key, None)
        self._background.run(self._quietly(self._drop(gone)))
