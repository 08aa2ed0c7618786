"""SVIDs of entries, signed by the SPIRE server whose node this is: nothing is signed here, and all is waited for."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from sojourn.errors import (
    InvalidInput,
    InvalidSvid,
    InvalidToken,
    NodeRefused,
    NotFound,
    Refused,
    SojournError,
    Unavailable,
    Unimplemented,
)
from sojourn.identity.entries import Entry
from sojourn.limits import UPSTREAM_KEPT_WAIT_SECONDS
from sojourn.runtime.clock import Clock
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid
from sojourn.spiffe.witsvid import WitSvid
from sojourn.spiffe.x509svid import X509Svid
from sojourn.upstream import workload_svids
from sojourn.upstream.batches import Batches
from sojourn.upstream.connection import BANNED
from sojourn.upstream.server_link import Work
from sojourn.upstream.vouching import Vouching
from sojourn.upstream.workload_svids import Signed

Made = TypeVar("Made")


class SigningNode(Protocol):
    """The node for which the server signs."""

    @property
    def bundle(self) -> Bundle: ...
    @property
    def vouching(self) -> Vouching: ...

    async def call(self, work: Work[Made], /) -> Made:
        """Do a piece of work at the server. Raise Unavailable if there is none, NodeRefused if it takes us for none."""

    async def refresh_bundle(self) -> None:
        """Have the bundle as it is now."""

    def sync_soon(self) -> None:
        """What the server has for this node may be other than we know."""

    def signed(self, entry: Entry, svid: X509Svid, /) -> None:
        """Hear of an SVID that was signed."""

    def kept_svid(self, entry: Entry, /) -> X509Svid | None:
        """An SVID of an earlier run, given once, that is good; None: there is none."""

    def is_fresh(self, svid: X509Svid, /) -> bool:
        """Whether one need not be renewed yet."""


class NodeX509Signer:
    """X.509-SVIDs, many by one call, with keys that are made here: a `Signer`."""

    def __init__(self, node: SigningNode, clock: Clock, new_curve: Callable[[], ec.EllipticCurve]) -> None:
        self._node = node
        self._clock = clock
        self._new_curve = new_curve
        self.batches: Batches[Entry, X509Svid] = Batches(self._sign)

    def at_once(self, _entry: Entry) -> None:
        return None

    async def sign(self, entry: Entry) -> X509Svid:
        """Sign one; or the one that an earlier run had, while it is fresh, or if no other can be had.

        Raise NotFound if the server has no such entry for us, Unavailable if no server answers, or what it has signed
        is not good.
        """
        kept = self._node.kept_svid(entry)
        if kept is None or not self.vouches(kept):
            return await self._signed(entry)
        if self._node.is_fresh(kept):
            return kept
        try:  # for a moment: whoever waits is to have the old one before that is given up
            async with asyncio.timeout(UPSTREAM_KEPT_WAIT_SECONDS):
                return await self._signed(entry)
        except (TimeoutError, Unavailable):
            return kept
        except NodeRefused as error:
            if error.reason_code == BANNED:
                raise
            return kept

    async def _signed(self, entry: Entry) -> X509Svid:
        with _for_workloads():
            svid = await self.batches.make(entry)
        self._node.signed(entry, svid)
        return svid

    def vouches(self, svid: X509Svid) -> bool:
        return self._node.vouching.of_x509(svid)

    async def _sign(self, entries: Sequence[Entry]) -> Sequence[Signed]:
        found = await self._asked(entries)
        unknown = [number for number, each in enumerate(found) if isinstance(each, InvalidSvid)]
        if unknown:  # by an authority that is newer than our bundle, perhaps
            before = self._node.bundle
            await self._node.refresh_bundle()
            if self._node.bundle is not before:
                for number, each in zip(unknown, await self._asked([entries[one] for one in unknown]), strict=True):
                    found[number] = each
        if any(isinstance(each, NotFound | InvalidSvid) for each in found):  # the entry may be another by now
            self._node.sync_soon()
        return found

    async def _asked(self, entries: Sequence[Entry]) -> list[Signed]:
        return await self._node.call(
            lambda server: workload_svids.sign_x509(
                server, entries, self._node.bundle, self._clock.now(), self._new_curve()
            )
        )


class NodeJwtSigner:
    """JWT-SVIDs: a `JwtSigner`. How long one lives is the server's choice."""

    def __init__(self, node: SigningNode, clock: Clock) -> None:
        self._node = node
        self._clock = clock

    def at_once(self, _entry: Entry, _audience: Sequence[str]) -> None:
        return None

    async def sign(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid:
        """Raise NotFound if the server has no such entry for us, Unavailable if no server answers, or what it has
        signed is not good.
        """
        with _for_workloads():
            try:
                return await self._verified(entry, audience)
            except (NotFound, InvalidInput):  # the entry may be another by now
                self._node.sync_soon()
                raise

    async def _verified(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid:
        try:
            return await self._asked(entry, audience)
        except InvalidToken as error:
            if error.reason_code != "unknown_key":
                raise
            await self._node.refresh_bundle()  # by a key that is newer than it
            return await self._asked(entry, audience)

    def vouches(self, svid: VerifiedJwtSvid) -> bool:
        return self._node.vouching.of_jwt(svid)

    async def _asked(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid:
        return await self._node.call(
            lambda server: workload_svids.sign_jwt(
                server, entry, audience, self._node.bundle.jwt_authorities, self._clock.now()
            )
        )


class NodeWitSigner:
    """WIT-SVIDs, of which a SPIRE server signs none for its nodes: a `Signer` that says so."""

    def at_once(self, _entry: Entry) -> None:
        return None

    async def sign(self, _entry: Entry) -> WitSvid:
        raise not_signed()

    def vouches(self, _svid: WitSvid) -> bool:
        return False


def not_signed() -> SojournError:
    return Unimplemented("a SPIRE server signs no WIT-SVIDs for its nodes: ask for an X.509-SVID or a JWT-SVID")


@contextmanager
def _for_workloads() -> Iterator[None]:
    """Within it what is wrong at the server is no fault of the workload's request, so that it asks again."""
    try:
        yield
    except (InvalidInput, Refused) as error:
        raise Unavailable(f"there is no SVID: {error.public}", detail=error.detail) from error
