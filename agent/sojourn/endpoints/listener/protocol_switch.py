"""What stands between a connection and the protocol that is spoken on it, wherever the connection comes from."""

import asyncio
from typing import Generic, TypeVar

from sojourn.endpoints.listener.refusals import Refusal
from sojourn.http2.connection import Connection
from sojourn.http2.frames import PREFACE
from sojourn.http2.host import Visitor
from sojourn.http2.limits import FIRST_BYTES_SECONDS
from sojourn.http2.server import Server
from sojourn.limits import GRACE_SECONDS, QUIET_SECONDS
from sojourn.runtime.hooks import Hooks

AnyVisitor = TypeVar("AnyVisitor", bound=Visitor)


class Doorway(Generic[AnyVisitor]):
    """A door's connections. Who may come in is for each kind of door to say."""

    def __init__(self) -> None:
        self.grace_seconds = GRACE_SECONDS
        self.quiet_seconds = QUIET_SECONDS
        self.server: Server | None = None  # what is served over HTTP/2; None: nothing
        self._callers: set[Caller[AnyVisitor]] = set()
        self.on_refused: Hooks[[Refusal]] = Hooks()  # a connection is closed, on which no call was answered

    @property
    def connections(self) -> int:
        return len(self._callers)

    async def drain(self) -> None:
        """Hear nothing more from callers, answer what they had asked as far as that is soon, and close.

        The end of the connection tells a caller whose call was not heard any more that it may ask again.
        """
        if self.server is not None:
            self.server.deaf = True
            for _ in range(int(self.grace_seconds / self.quiet_seconds)):
                if not self.server.streams:
                    break
                await asyncio.sleep(self.quiet_seconds)
        for caller in list(self._callers):
            caller.end()
        if self._callers:
            await asyncio.sleep(self.quiet_seconds)
        self.close()

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


class Caller(asyncio.Protocol, Generic[AnyVisitor]):
    """One connection: tells by its first bytes which protocol it speaks, and leaves it to that."""

    def __init__(self, door: "Doorway[AnyVisitor]", peer: AnyVisitor | None = None) -> None:
        """`peer`: who it is, where that was found out before."""
        self._door = door
        self._transport: asyncio.Transport | None = None
        self._peer = peer
        self._gone = False
        self._protocol: asyncio.Protocol | None = None
        self._held = b""
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's always is
        self._transport = transport
        if self._peer is None:
            self._peer = self._door.enter(self, transport)
        if self._peer is None or self._gone:
            transport.abort()
            return
        self._deadline = asyncio.get_running_loop().call_later(FIRST_BYTES_SECONDS, self.abort)

    def data_received(self, data: bytes) -> None:
        if self._protocol is not None:
            self._protocol.data_received(data)
        elif self._peer is not None:
            self._held += data
            self._choose(self._peer)

    def _choose(self, peer: AnyVisitor) -> None:
        """Tell the protocols apart, as soon as the first bytes do."""
        begun = self._held[: len(PREFACE)]
        if begun != PREFACE[: len(begun)]:
            self._protocol = self._door.http_protocol(peer)
        elif len(begun) < len(PREFACE):
            return
        elif self._door.server is not None:
            self._protocol = Connection(self._door.server, peer)
        self._decided()
        if self._protocol is None or self._transport is None:
            self.abort()
            return
        held, self._held = self._held, b""
        self._protocol.connection_made(self._transport)
        self._protocol.data_received(held)

    def _decided(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    def eof_received(self) -> bool:
        return self._protocol is not None and bool(self._protocol.eof_received())

    def connection_lost(self, error: Exception | None) -> None:
        self._decided()
        if self._protocol is not None:
            self._protocol.connection_lost(error)
            self._protocol = None  # which has the transport, and that this: nothing is left for the garbage collector
        if self._peer is not None:
            self._door.leave(self, self._peer)
            self._peer = None
        self._transport = None

    def end(self) -> None:
        """Close the connection with a word to the other side, if its protocol has one."""
        if isinstance(self._protocol, Connection):
            self._protocol.go_away()
        else:
            self.abort()

    def abort(self) -> None:
        self._gone = True
        if self._transport is not None:
            self._transport.abort()
