"""SVIDs that are revoked before their end: the deny list, and the lists (CRLs) that go out on the streams.

An SVID stays on the list until it would have ended anyway.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from sojourn.authority.crl import RevokedLeaf
from sojourn.background import Background
from sojourn.clock import Alarms, Clock
from sojourn.errors import InvalidToken, LimitExceeded, SojournError
from sojourn.hooks import Hooks
from sojourn.identity.issued import JWT, X509, IssuedSvid
from sojourn.limits import REVOKED_SVIDS
from sojourn.spiffe.jwtsvid import JwtSvid

log = structlog.get_logger()
LOOK_SECONDS = 3_600.0
SIGN_AGAIN = timedelta(days=1)
ENDED_SLACK_SECONDS = 86_400  # a clock that was set ahead for a while must not take anything from the list


@dataclass(frozen=True, slots=True)
class RevokedSvid:
    """One SVID on the list, since `revoked_at` (seconds since the epoch)."""

    svid: IssuedSvid
    revoked_at: int


class RevocationStore(Protocol):
    """Where the list is kept."""

    def load(self) -> list[RevokedSvid]: ...

    async def put(self, revoked: Sequence[RevokedSvid]) -> None: ...

    async def drop_ended(self, now: int) -> None: ...


class CrlSigner(Protocol):
    """What signs lists of revoked leaves."""

    def sign_crls(self, revoked: Iterable[RevokedLeaf]) -> tuple[bytes, ...]: ...


class Revocations:
    """The deny list. `crls` are DER, and empty while no X.509-SVID is on it."""

    def __init__(self, store: RevocationStore, signer: CrlSigner, clock: Clock, alarms: Alarms) -> None:
        self._store = store
        self._signer = signer
        self._clock = clock
        self._alarms = alarms
        self.on_change: Hooks[[]] = Hooks()  # of the CRLs
        self.on_revoked: Hooks[[Sequence[RevokedSvid]]] = Hooks()  # as soon as they are no longer good, not yet on disk
        self._revoked = {(each.svid.kind, each.svid.id): each for each in store.load()}
        self._background = Background("revocations_not_dropped")
        self._signed_at = clock.now()
        self.crls: tuple[bytes, ...] = ()
        self._forget_ended()
        self._sign()
        alarms.after(LOOK_SECONDS, self._look)

    def __len__(self) -> int:
        return len(self._revoked)

    def all(self) -> list[RevokedSvid]:
        """Those that have not ended, the last revoked first."""
        now = self._clock.now().timestamp()
        alive = [each for each in self._revoked.values() if each.svid.expires_at > now]
        return sorted(alive, key=lambda each: (-each.revoked_at, each.svid.spiffe_id, each.svid.id))

    def check(self, svid: JwtSvid) -> JwtSvid:
        """Return a JWT-SVID that is not on the list. Raise InvalidToken."""
        jti = svid.claims.get("jti")
        if isinstance(jti, str) and (JWT, jti) in self._revoked:
            raise InvalidToken("token was revoked", reason_code="revoked")
        return svid

    def names(self, kind: str, svid_id: str) -> bool:
        """Whether an SVID is on the list."""
        return (kind, svid_id) in self._revoked

    async def revoke(self, svids: Sequence[IssuedSvid]) -> list[RevokedSvid]:
        """Put SVIDs on the list and return those that were not on it. When this returns, it is durable and in force."""
        now = int(self._clock.now().timestamp())
        fresh = [RevokedSvid(svid, now) for svid in svids if (svid.kind, svid.id) not in self._revoked]
        if len(self._revoked) + len(fresh) > REVOKED_SVIDS:
            raise LimitExceeded(f"more than {REVOKED_SVIDS} SVIDs would be on the list: taint the authority instead")
        # In force before it is durable: a caller who is told of a failure knows that some may be revoked.
        for each in fresh:
            self._revoked[each.svid.kind, each.svid.id] = each
        self.on_revoked.tell(fresh)
        try:
            await asyncio.shield(asyncio.ensure_future(self._store.put(fresh)))
        finally:
            if any(each.svid.kind == X509 for each in fresh):
                self._sign()
                self.on_change.tell()
        return fresh

    def _sign(self) -> None:
        leaves = [
            RevokedLeaf(
                int(each.svid.id, 16),
                each.svid.issuer_id,
                each.svid.root_id,
                datetime.fromtimestamp(each.revoked_at, UTC),
            )
            for each in self._revoked.values()
            if each.svid.kind == X509
        ]
        self.crls = self._signer.sign_crls(leaves)
        self._signed_at = self._clock.now()

    def _look(self) -> None:
        """Take from the list what has ended, and sign it anew before verifiers would find it too old."""
        self._alarms.after(LOOK_SECONDS, self._look)
        gone = self._forget_ended()
        if gone:
            self._background.run(self._drop_ended())
        if gone or (self.crls and abs(self._clock.now() - self._signed_at) > SIGN_AGAIN):
            self._sign()
            self.on_change.tell()

    def _forget_ended(self) -> bool:
        now = self._clock.now().timestamp()
        ended = [key for key, each in self._revoked.items() if each.svid.expires_at + ENDED_SLACK_SECONDS <= now]
        for key in ended:
            del self._revoked[key]
        return bool(ended)

    async def _drop_ended(self) -> None:
        try:
            await self._store.drop_ended(int(self._clock.now().timestamp()) - ENDED_SLACK_SECONDS)
        except SojournError as error:
            log.warning("revocations_not_dropped", reason=error.public, detail=error.detail)
