"""What stands between a connection and the side that speaks its protocol, wherever the connection comes from.

gRPC sees nothing of a Unix socket's caller. So the door connects inward from a socket that is bound to a random
abstract name; gRPC reports that name as the peer, and the name is the key to who it is. The name is registered before
the connect, has 128 random bits, and the inward socket lies in a folder that only we can enter.
"""

import asyncio
import errno
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import structlog

from sojourn.errors import AttestationFailed
from sojourn.limits import (
    FIRST_BYTES_SECONDS,
    GRACE_SECONDS,
    HELD_BYTES_MAX,
    INWARD_CONNECT_SECONDS,
    INWARD_RETRY_SECONDS,
    QUIET_SECONDS,
)

log = structlog.get_logger()
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KEY_PREFIX = "sojourn-"


class Visitor(Protocol):
    """Who is at the other end of a connection."""

    @property
    def who(self) -> int | str:
        """Whose limits count: a uid, or a SPIFFE ID."""

    @property
    def details(self) -> Mapping[str, int | str]:
        """What else is to be said of it, for log and audit."""


class Peers:
    """The peers whose gRPC connections are open, by the name of the inward socket."""

    def __init__(self) -> None:
        self._peers: dict[str, Visitor] = {}
        self.calls = 0  # unary ones that are being answered

    def register(self, peer: Visitor) -> str:
        name = KEY_PREFIX + secrets.token_hex(16)
        self._peers[name] = peer
        return name

    @contextmanager
    def call(self) -> Iterator[None]:
        """Within it a unary call is being answered."""
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1

    def forget(self, name: str) -> None:
        self._peers.pop(name, None)

    def of_call(self, grpc_peer: str) -> Visitor:
        """The peer of a call by what gRPC calls its peer. Raise AttestationFailed for a name that is not ours."""
        peer = self._peers.get(grpc_peer.removeprefix("unix-abstract:"))
        if peer is None:
            raise AttestationFailed(detail=f"unknown inward connection {grpc_peer!r}")
        return peer


AnyVisitor = TypeVar("AnyVisitor", bound=Visitor)


class Doorway(Generic[AnyVisitor]):
    """A door's connections and the way inward. Who may come in is for each kind of door to say."""

    def __init__(self, inward: Path | None) -> None:
        """`inward` is the socket that gRPC listens on; None: no gRPC here."""
        self.peers = Peers()
        self.inward = inward
        self._callers: set[Caller[AnyVisitor]] = set()
        self.deaf = False
        self.answering = False

    @property
    def connections(self) -> int:
        return len(self._callers)

    async def hush(self) -> None:
        """Hear nothing more from callers, and return when what they had asked is answered, as far as that is soon.

        gRPC would cancel a call that comes just as it stops; of one that never reaches it, the caller learns with the
        end of the connection that it may ask again.
        """
        self.deaf = self.answering = True
        async with asyncio.timeout(GRACE_SECONDS):
            while self.answering or self.peers.calls:
                self.answering = False
                await asyncio.sleep(QUIET_SECONDS)

    def close(self) -> None:
        """Close every connection at once."""
        for caller in list(self._callers):
            caller.abort()

    # --- for Caller -------------------------------------------------------------------------------------------------

    def enter(self, caller: "Caller[AnyVisitor]", transport: asyncio.Transport) -> AnyVisitor | None:
        """Find out who is behind a new connection, or return None if it may not come in."""
        raise NotImplementedError

    def leave(self, caller: "Caller[AnyVisitor]", peer: AnyVisitor) -> None:
        """A connection that came in has ended."""
        raise NotImplementedError

    def http_protocol(self, peer: AnyVisitor) -> asyncio.Protocol | None:
        """What answers a connection that does not speak HTTP/2; None: nobody."""
        del peer
        return None

    async def connect_inward(self, name: str, caller: "Caller[AnyVisitor]") -> None:
        """Connect to gRPC under `name` and splice the connection to `caller`."""
        loop = asyncio.get_running_loop()
        inward = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            inward.bind("\0" + name)
            async with asyncio.timeout(INWARD_CONNECT_SECONDS):
                while True:
                    try:
                        inward.connect(str(self.inward))
                        break
                    except OSError as error:
                        if error.errno != errno.EAGAIN:  # EAGAIN: the backlog is full for a moment
                            raise
                        await asyncio.sleep(INWARD_RETRY_SECONDS)
            await loop.create_unix_connection(lambda: Inward(caller), sock=inward)
        except BaseException:
            inward.close()
            raise


class Caller(asyncio.Protocol, Generic[AnyVisitor]):
    """The outward side of one connection."""

    def __init__(self, door: "Doorway[AnyVisitor]") -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None
        self._peer: AnyVisitor | None = None
        self._inward: asyncio.Transport | None = None
        self._name = ""
        self._held = bytearray()
        self._ended = False
        self._deadline: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._http: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's always is
        self._transport = transport
        self._peer = self._door.enter(self, transport)
        if self._peer is None:
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(FIRST_BYTES_SECONDS, self.abort)

    def data_received(self, data: bytes) -> None:
        if self._inward is not None:
            if not self._inward.is_closing() and not self._door.deaf:
                self._inward.write(data)
            return
        if self._http is not None:
            self._http.data_received(data)
            return
        self._held += data
        if len(self._held) > HELD_BYTES_MAX:
            self.abort()
        elif self._connecting is None:
            self._choose()

    def _choose(self) -> None:
        """Tell the protocols apart by the first bytes, as soon as they tell."""
        begun = bytes(self._held[: len(HTTP2_PREFACE)])
        if begun == HTTP2_PREFACE[: len(begun)]:
            if self._door.inward is None:
                self.abort()
            elif len(begun) == len(HTTP2_PREFACE):
                self._decided()
                self._connecting = asyncio.ensure_future(self._splice())
            return
        self._decided()
        assert self._peer is not None
        assert self._transport is not None  # set in connection_made
        self._http = self._door.http_protocol(self._peer)
        if self._http is None:
            self.abort()
            return
        self._http.connection_made(self._transport)
        self._http.data_received(bytes(self._held))
        self._held.clear()

    def _decided(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    async def _splice(self) -> None:
        assert self._peer is not None  # set in connection_made
        self._name = self._door.peers.register(self._peer)
        try:
            await self._door.connect_inward(self._name, self)
        except (OSError, TimeoutError) as error:
            log.warning("inward_connect_failed", reason=str(error))
            self.abort()

    def inward_made(self, inward: asyncio.Transport) -> None:
        if self._transport is None or self._transport.is_closing():
            inward.abort()
            return
        self._inward = inward
        inward.write(bytes(self._held))
        self._held.clear()
        if self._ended:
            inward.write_eof()

    def inward_data(self, data: bytes) -> None:
        self._door.answering = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def inward_lost(self) -> None:
        # From here on somebody else could bind the name: it must be the key to nothing.
        self._door.peers.forget(self._name)
        self._inward = None
        if self._transport is not None:
            self._transport.close()

    def pause_inward(self, *, pause: bool) -> None:
        """The inward side takes no more for now, or takes again: so do we of the caller."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if pause else self._transport.resume_reading)()

    def pause_writing(self) -> None:
        if self._http is not None:
            self._http.pause_writing()
        elif self._inward is not None and not self._inward.is_closing():
            self._inward.pause_reading()

    def resume_writing(self) -> None:
        if self._http is not None:
            self._http.resume_writing()
        elif self._inward is not None and not self._inward.is_closing():
            self._inward.resume_reading()

    def eof_received(self) -> bool:
        if self._http is not None:
            return bool(self._http.eof_received())
        self._ended = True
        if self._inward is not None and not self._inward.is_closing():
            self._inward.write_eof()
        return self._inward is not None or self._connecting is not None

    def connection_lost(self, error: Exception | None) -> None:
        self._decided()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._name:
            self._door.peers.forget(self._name)
        if self._inward is not None:
            self._inward.abort()
            self._inward = None
        if self._http is not None:
            self._http.connection_lost(error)
        if self._peer is not None:
            self._door.leave(self, self._peer)
            self._peer = None
        self._transport = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Inward(asyncio.Protocol):
    """The inward side of one gRPC connection."""

    def __init__(self, caller: Caller[Any]) -> None:
        self._caller = caller

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's always is
        self._caller.inward_made(transport)

    def data_received(self, data: bytes) -> None:
        self._caller.inward_data(data)

    def pause_writing(self) -> None:
        self._caller.pause_inward(pause=True)

    def resume_writing(self) -> None:
        self._caller.pause_inward(pause=False)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._caller.inward_lost()
