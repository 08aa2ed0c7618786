"""The door: accepts callers, pins who they are, and shows each to the side that speaks its protocol.

gRPC sees nothing of a Unix socket's caller. So the door connects inward from a socket that is bound to a random
abstract name; gRPC reports that name as the peer, and the name is the key to the Peer. The name is registered before
the connect, has 128 random bits, and the inward socket lies in a folder that only we can enter.
"""

import asyncio
import errno
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from sojourn.attestation.peer import Peer
from sojourn.doors.admission import Admission, Allowance
from sojourn.errors import AttestationFailed, SojournError
from sojourn.limits import (
    FIRST_BYTES_SECONDS,
    GRACE_SECONDS,
    HELD_BYTES_MAX,
    INWARD_CONNECT_SECONDS,
    INWARD_RETRY_SECONDS,
    LISTEN_BACKLOG,
    QUIET_SECONDS,
    REFUSALS_LOGGED_PER_SECOND,
)

log = structlog.get_logger()
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KEY_PREFIX = "sojourn-"

HttpFactory = Callable[[Peer], asyncio.Protocol]


class Peers:
    """The peers whose gRPC connections are open, by the name of the inward socket."""

    def __init__(self) -> None:
        self._peers: dict[str, Peer] = {}
        self.calls = 0  # unary ones that are being answered

    def register(self, peer: Peer) -> str:
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

    def of_call(self, grpc_peer: str) -> Peer:
        """The peer of a call by what gRPC calls its peer. Raise AttestationFailed for a name that is not ours."""
        peer = self._peers.get(grpc_peer.removeprefix("unix-abstract:"))
        if peer is None:
            raise AttestationFailed(detail=f"unknown inward connection {grpc_peer!r}")
        return peer


class Door:
    """One public socket and what stands behind it."""

    def __init__(
        self,
        inward: Path,
        admission: Admission,
        *,
        http: HttpFactory | None = None,
        admit: frozenset[int] | None = None,
    ) -> None:
        """`inward` is the socket that gRPC listens on. `admit`: the uids that may use this door; None: all."""
        self.peers = Peers()
        self.inward = inward
        self._admission = admission
        self._http = http
        self._admit = admit
        self._refusals = Allowance(REFUSALS_LOGGED_PER_SECOND)
        self._callers: set[Caller] = set()
        self._server: asyncio.Server | None = None
        self.deaf = False
        self.answering = False

    async def open(self, listener: socket.socket) -> None:
        """Begin to accept on a listening socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Caller(self), sock=listener, backlog=LISTEN_BACKLOG)

    @property
    def connections(self) -> int:
        return len(self._callers)

    def stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()

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

    def enter(self, caller: "Caller", transport: asyncio.Transport) -> Peer | None:
        """Pin the process behind a new connection, or return None if it may not come in."""
        connection = transport.get_extra_info("socket")
        try:
            uid = Peer.uid_of_socket(connection)
        except OSError as error:
            return self._refuse("no credentials", -1, detail=str(error))
        if self._admit is not None and uid not in self._admit:
            return self._refuse("the user may not use this socket", uid)
        reason = self._admission.enter(uid)
        if reason:
            return self._refuse(reason, uid)
        try:
            peer = Peer.of_socket(connection)
        except (SojournError, OSError) as error:
            self._admission.leave(uid)
            return self._refuse(str(error), uid, detail=getattr(error, "detail", ""))
        self._callers.add(caller)
        return peer

    def _refuse(self, reason: str, uid: int, *, detail: str = "") -> Peer | None:
        """Close a connection without a word to the caller, and with a few to the log."""
        if self._refusals.allow(uid):
            log.info("caller_refused", reason=reason, uid=uid, detail=detail or None)
        return None

    def leave(self, caller: "Caller", peer: Peer) -> None:
        self._callers.discard(caller)
        self._admission.leave(peer.uid)
        peer.close()

    def http_protocol(self, peer: Peer) -> asyncio.Protocol | None:
        return self._http(peer) if self._http else None

    async def connect_inward(self, name: str, caller: "Caller") -> None:
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


class Caller(asyncio.Protocol):
    """The outward side of one connection."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None
        self._peer: Peer | None = None
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
        # The process is gone: so are its streams and what it was about to ask.
        self._peer.process.on_exit(self.abort)
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
            if len(begun) == len(HTTP2_PREFACE):
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

    def __init__(self, caller: Caller) -> None:
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
