"""A private socket of this process, behind which lies an agent on another machine.

gRPC's own client cannot take a certificate for what it is when its only name is a SPIFFE ID. So gRPC speaks plainly to
this socket, and TLS, with the check of the SPIFFE ID, is done here, connection by connection.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import struct
import tempfile
from typing import Any, Final

from sojourn.errors import InvalidInput, SojournError
from sojourn.limits import HELD_BYTES_MAX, REMOTE_HANDSHAKE_SECONDS
from sojourn.spiffetls.tcp import set_options

CONNECT_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 1.0  # for the loop to let go of connections that have ended
_ACCEPT_AGAIN_SECONDS: Final = 1.0
_UCRED: Final = struct.Struct("3i")


class Bridge:
    """`path` is the socket, for this process alone. `failure` says why the last connection could not be made, or ''."""

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        """`address` is HOST:PORT. Raise InvalidInput if it is not."""
        host, _, port = address.rpartition(":")
        if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) <= 65_535:
            raise InvalidInput(f"{address!r} is not HOST:PORT")
        self._host, self._port = host.strip("[]"), int(port)
        self._context = context
        self._near: set[_Near] = set()
        self._sides: set[object] = set()  # all ends of connections that the loop still knows
        self._quiet = asyncio.Event()  # there are none
        self._quiet.set()
        self._listener: socket.socket | None = None
        self._coming: set[asyncio.Task[object]] = set()  # connections of which no protocol has heard yet
        self._folder = ""
        self._closed = False
        self.failure = ""
        self.unverified = False  # that is since the certificate is of no authority that is trusted

    @property
    def path(self) -> str:
        return os.path.join(self._folder, "agent.sock")

    async def open(self) -> None:
        """Make the socket, in a folder that only this user can enter."""
        self._folder = tempfile.mkdtemp(prefix="sojourn-")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(self.path)
            listener.listen()
        except BaseException:
            listener.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._listener = listener
        self._listen(listener)

    def _listen(self, listener: socket.socket) -> None:
        if not self._closed:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        """Take a connection in. A server of asyncio's loses it, if it is closed before a protocol has heard of it."""
        loop = asyncio.get_running_loop()
        try:
            connection, _ = listener.accept()
        except OSError:  # there are no descriptors for now
            loop.remove_reader(listener)
            loop.call_later(_ACCEPT_AGAIN_SECONDS, self._listen, listener)
            return
        coming = loop.create_task(loop.connect_accepted_socket(lambda: _Near(self), connection))
        self._coming.add(coming)
        coming.add_done_callback(self._coming.discard)

    async def close(self) -> None:
        """End all connections and remove the socket. Returns when the loop has let go of them."""
        self._closed = True
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            await asyncio.gather(*self._coming, return_exceptions=True)
        crossing = [near.crossing for near in self._near if near.crossing is not None]
        self.drop()
        await asyncio.gather(*crossing, return_exceptions=True)
        if not await self._gone_quiet():
            for near in list(self._near):
                near.abort()  # one whose other end reads nothing is never done with closing
            await self._gone_quiet()
        shutil.rmtree(self._folder, ignore_errors=True)

    def drop(self) -> None:
        """End all connections: the next call makes a new one, with the present SVID."""
        for near in list(self._near):
            if near.crossing is not None:
                near.crossing.cancel()
            near.close()

    async def _gone_quiet(self) -> bool:
        """Whether the loop lets go of all connections in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._quiet.wait()
        return self._quiet.is_set()

    # --- for the sides ----------------------------------------------------------------------------------------------

    def made(self, side: object) -> None:
        self._sides.add(side)
        self._quiet.clear()

    def lost(self, side: object) -> None:
        self._sides.discard(side)
        if not self._sides:
            self._quiet.set()

    def entered(self, near: "_Near", transport: asyncio.Transport) -> bool:
        """Whether a connection may come in: it is of this very process, since another could use our SVID."""
        pid, _, _ = _UCRED.unpack(
            transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        )
        if pid != os.getpid() or self._closed:
            return False
        self._near.add(near)
        return True

    def left(self, near: "_Near") -> None:
        self._near.discard(near)

    async def cross(self, near: "_Near") -> None:
        """Connect to the agent for a connection that has come in, or close that."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS + REMOTE_HANDSHAKE_SECONDS):
                transport, _ = await loop.create_connection(
                    lambda: _Far(self, near),
                    self._host,
                    self._port,
                    ssl=self._context,
                    ssl_handshake_timeout=REMOTE_HANDSHAKE_SECONDS,
                )
            set_options(transport.get_extra_info("socket"))
            self.failure = ""
        except (OSError, SojournError, TimeoutError) as error:  # ssl.SSLError is an OSError
            said = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error)
            self.failure = said or "no answer in time"
            self.unverified = isinstance(error, ssl.SSLCertVerificationError)
            near.close()


class _Near(asyncio.Protocol):
    """A connection of gRPC's."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._held = bytearray()
        self.crossing: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.far: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's always is
        self.transport = transport
        self._bridge.made(self)
        if not self._bridge.entered(self, transport):
            transport.abort()
            return
        self.crossing = asyncio.ensure_future(self._bridge.cross(self))

    def crossed(self, far: asyncio.Transport) -> None:
        """There is a connection to the agent."""
        if self.transport is None or self.transport.is_closing():
            far.abort()
            return
        self.far = far
        far.write(bytes(self._held))
        self._held.clear()

    def data_received(self, data: bytes) -> None:
        if self.far is not None:
            if not self.far.is_closing():
                self.far.write(data)
            return
        self._held += data
        if len(self._held) > HELD_BYTES_MAX:
            self.close()

    def pause_writing(self) -> None:
        _pause(self.far, pause=True)

    def resume_writing(self) -> None:
        _pause(self.far, pause=False)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._bridge.left(self)
        self._bridge.lost(self)
        if self.crossing is not None:
            self.crossing.cancel()
        if self.far is not None:
            self.far.abort()
        self.far = self.transport = None

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _Far(asyncio.Protocol):
    """The TLS connection to the agent that belongs to it."""

    def __init__(self, bridge: Bridge, near: _Near) -> None:
        self._bridge = bridge
        self._near = near

    def connection_made(self, transport: Any) -> None:
        self._bridge.made(self)
        self._near.crossed(transport)

    def data_received(self, data: bytes) -> None:
        near = self._near.transport
        if near is not None and not near.is_closing():
            near.write(data)

    def pause_writing(self) -> None:
        _pause(self._near.transport, pause=True)

    def resume_writing(self) -> None:
        _pause(self._near.transport, pause=False)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._bridge.lost(self)
        self._near.far = None
        self._near.close()


def _pause(transport: asyncio.Transport | None, *, pause: bool) -> None:
    """The other side takes no more for now, or takes again: so do we of this one."""
    if transport is not None and not transport.is_closing():
        (transport.pause_reading if pause else transport.resume_reading)()
