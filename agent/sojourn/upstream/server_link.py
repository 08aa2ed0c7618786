"""Calls to whichever server answers, as the node that we are now.

There is one connection at a time. With another SVID, or another bundle, the next call opens another one, and the one
before is closed when its last call has ended: no call is lost over it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar

import grpc

from sojourn.errors import NodeRefused, UpstreamUnavailable
from sojourn.limits import UPSTREAM_MOVE_SECONDS
from sojourn.runtime.background import Background
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.x509svid import X509Svid
from sojourn.upstream.connection import ServerConnection, ServerFault
from sojourn.upstream.server_addresses import ServerAddresses

Made = TypeVar("Made")
_ENDS: Final = "this agent ends"
Work = Callable[[ServerConnection], Awaitable[Made]]


class Shown(Protocol):
    """What the server is verified by, and what it is shown, as it is now."""

    @property
    def trusted(self) -> Bundle: ...
    @property
    def own_svid(self) -> X509Svid:
        """Raise Unavailable if there is none."""

    async def settled(self) -> None:
        """Return when no other SVID is being had: until then the server may know it, and we not yet."""


class _Opened:
    """A connection, and who uses it."""

    def __init__(self, server: ServerConnection, trusted: Bundle, svid: X509Svid | None) -> None:
        self.server = server
        self.trusted = trusted
        self.svid = svid
        self.users = 0
        self.retired = False
        self.answered = False  # at least once

    def shows(self, trusted: Bundle, svid: X509Svid) -> bool:
        same = self.trusted is trusted or self.trusted.x509_der == trusted.x509_der
        return same and self.svid is svid and not self.retired


class ServerLink:
    """The way to the servers of one trust domain."""

    def __init__(self, addresses: ServerAddresses, shown: Shown) -> None:
        self._addresses = addresses
        self._shown = shown
        self._opened: _Opened | None = None
        self._all: set[_Opened] = set()  # that are not closed
        self._opening = asyncio.Lock()
        self._closed = False
        self._closing = Background("node_fault")

    @property
    def server(self) -> str:
        """HOST:PORT of the server that has answered last, or empty if it does not any more."""
        opened = self._opened
        return opened.server.address if opened is not None and opened.answered else ""

    async def call(self, work: Work[Made], *, renewing: bool = False) -> Made:
        """Do a piece of work at a server, as this node. It is begun anew, perhaps at another server, if one fails; so
        it must be such as may be done twice. Raise what it raises: UpstreamUnavailable if no server answers, and
        ServerFault if one has answered that it cannot.

        `renewing`: it is what has another SVID.
        """
        return await self._tried(work, self._as_node, renewing=renewing)

    async def call_unshown(self, work: Work[Made]) -> Made:
        """The same over a connection of its own that shows no certificate."""
        return await self._tried(work, self._as_nobody, renewing=True)

    async def close(self) -> None:
        """Close all connections, also those that are used: what is under way fails. Returns when they are."""
        self._closed = True
        for opened in list(self._all):
            opened.retired = True
            self._close(opened)
        self._opened = None
        await self._closing.quiet()

    async def _tried(self, work: Work[Made], opened_by: Callable[[], Awaitable[_Opened]], *, renewing: bool) -> Made:
        failed: set[str] = set()
        while True:
            opened = await opened_by()
            had_answered = opened.answered
            try:
                async with self._used(opened):
                    made = await work(opened.server)
            except ServerFault:
                opened.answered = True
                raise
            except UpstreamUnavailable as error:
                self._retire(opened)
                if _late(error):  # it is asked no more in this call, which has taken long enough
                    self._addresses.failed(opened.server.address)
                    raise
                # A connection that has answered may have ended by its age as we called: the same server is asked anew.
                if not had_answered:
                    await self._move_on(opened.server.address, failed, error)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if opened in self._all or task is None or task.cancelling():
                    raise
                # gRPC says so of a call whose connection was closed.
                raise UpstreamUnavailable(_ENDS) from None
            except NodeRefused:
                if renewing:
                    raise
                await self._shown.settled()
                if opened.svid is self._shown.own_svid:
                    raise
                # What this connection shows was replaced meanwhile.
            else:
                opened.answered = True
                return made

    async def _move_on(self, address: str, failed: set[str], error: UpstreamUnavailable) -> None:
        """Turn to an address that has not failed in this call. Raise the error if there is none."""
        failed.add(address)
        self._addresses.failed(address)
        if not self._addresses.present or self._addresses.present in failed:
            raise error
        await asyncio.sleep(random.uniform(0, UPSTREAM_MOVE_SECONDS))  # noqa: S311  # that not all nodes come at once

    async def _as_node(self) -> _Opened:
        async with self._opening:
            trusted, svid = self._shown.trusted, self._shown.own_svid
            if self._opened is not None and self._opened.shows(trusted, svid):
                return self._opened
            before, self._opened = self._opened, await self._open(trusted, svid)
            if before is not None:
                self._retire(before)
            return self._opened

    async def _as_nobody(self) -> _Opened:
        opened = await self._open(self._shown.trusted, None)
        opened.retired = True  # it is closed after one use
        return opened

    async def _open(self, trusted: Bundle, svid: X509Svid | None) -> _Opened:
        server = ServerConnection(await self._addresses.get(), trusted, svid)
        if self._closed:
            raise UpstreamUnavailable(_ENDS)
        try:
            await server.__aenter__()
        except OSError as error:
            raise UpstreamUnavailable(f"no connection can be made from here: {error.strerror}") from error
        opened = _Opened(server, trusted, svid)
        self._all.add(opened)
        return opened

    @asynccontextmanager
    async def _used(self, opened: _Opened) -> AsyncIterator[None]:
        opened.users += 1
        try:
            yield
        finally:
            opened.users -= 1
            if opened.retired and not opened.users:
                self._close(opened)

    def _retire(self, opened: _Opened) -> None:
        """No call begins on it any more."""
        if self._opened is opened:
            self._opened = None
        if not opened.retired:
            opened.retired = True
            if not opened.users:
                self._close(opened)

    def _close(self, opened: _Opened) -> None:
        if opened in self._all:
            self._all.remove(opened)
            self._closing.run(opened.server.__aexit__(None, None, None))


def _late(error: UpstreamUnavailable) -> bool:
    """Whether the server took longer than a call may take."""
    cause = error.__cause__
    return isinstance(cause, grpc.aio.AioRpcError) and cause.code() is grpc.StatusCode.DEADLINE_EXCEEDED
