"""One HTTP/1.1 connection, by uvicorn. Imported when the first comes: most callers speak gRPC alone."""

import asyncio
from collections import deque
from time import monotonic

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from sojourn.endpoints.http1.scope import HELD, SENDER
from sojourn.endpoints.http1.whole_writes import WholeWrites
from sojourn.errors import InvalidInput, LimitExceeded
from sojourn.http2.limits import FIELD_HELD_BYTES, METADATA_MAX_BYTES
from sojourn.limits import (
    HTTP_BODY_MAX_BYTES,
    HTTP_FAREWELL_SECONDS,
    HTTP_HEAD_FIELDS,
    HTTP_KEEP_ALIVE_SECONDS,
    HTTP_PIPELINE,
    HTTP_READ_BYTES,
    HTTP_REQUEST_SECONDS,
    REFUSALS_LOGGED_PER_SECOND,
    REQUESTS_HELD_BYTES,
)
from sojourn.oauth.client_auth import ClientSender
from sojourn.quota.rate import Rate
from sojourn.quota.turns import Turn, Turns
from sojourn.quota.usage import Held

log = structlog.get_logger()
_VERSIONS = frozenset({"1.0", "1.1"})
_TOO_LARGE = b"""HTTP/1.1 431 Request Header Fields Too Large\r
content-type: text/plain; charset=utf-8\r
content-length: %d\r
connection: close\r
\r
%b"""  # RFC 6585, 5


class Conversations:
    """Makes uvicorn's protocol, and knows those that are open."""

    def __init__(self, app: ASGIApp, turns: Turns, *, request_seconds: float = HTTP_REQUEST_SECONDS) -> None:
        """`request_seconds`: within which a request must have come whole."""
        self.config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=HTTP_KEEP_ALIVE_SECONDS,
            log_level="error",  # below that it has a line or two for each request that is malformed
        )
        self.config.load()
        self.state = ServerState()
        self.logged = Rate(REFUSALS_LOGGED_PER_SECOND)
        self.turns = turns
        self.request_seconds = request_seconds
        self.held = Held(REQUESTS_HELD_BYTES)  # of all requests that are not answered yet

    def make(self, sender: ClientSender) -> "Conversation":
        return Conversation(sender, self)

    def close(self) -> None:
        """Close idle connections; those that are being answered close after it."""
        for connection in list(self.state.connections):
            connection.shutdown()


class Conversation(HttpToolsProtocol):
    """uvicorn's protocol, with the Sender in each request's scope, and limits that it lacks.

    What has come is read in the sender's turns: those of one would else all be worked off before others are heard.
    """

    def __init__(self, sender: ClientSender, others: Conversations) -> None:
        super().__init__(config=others.config, server_state=others.state, app_state={})
        self._sender = sender
        self._others = others
        self._came: deque[bytes] = deque()  # and is not read yet
        self._waits = False  # for a turn; until then nothing more is taken
        self._came_bytes = 0  # of the request that comes
        self._heading = False  # its head is not whole
        self._oversized = False  # or is larger than may be
        self._fields = 0
        self._field_bytes = 0
        self._heads: deque[int] = deque()  # bytes of those that are not answered, the last one as far as it has come
        self._held = 0  # bytes that are counted for them
        self._whole = 0  # requests that have come whole, without those that are answered
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's always is
        super().connection_made(WholeWrites(transport))
        self._expect()

    def data_received(self, data: bytes) -> None:
        waited = bool(self._came)
        self._came.extend(data[at : at + HTTP_READ_BYTES] for at in range(0, len(data), HTTP_READ_BYTES))
        if not waited:
            self._others.turns.ask(self._sender.who, self)
        if self._came and not self.transport.is_closing():
            self._waits = True
            self.transport.pause_reading()

    def read(self, turn: Turn) -> bool:
        """Read what has come. Return whether there is more."""
        if not self._came:  # the connection has ended meanwhile
            return False
        begun = monotonic()
        try:
            self._read(self._came[0])
        finally:
            if self._came:
                self._came.popleft()
            turn.spend(monotonic() - begun, calls=1)
        if self._came:
            return True
        if self._waits:
            self._waits = False
            if not self.flow.read_paused and not self.transport.is_closing() and not self._oversized:
                self.transport.resume_reading()
        return False

    def _read(self, data: bytes) -> None:
        if self.transport.is_closing() or self._oversized:
            return
        self._came_bytes += len(data)
        super().data_received(data)
        if self._heading and self._came_bytes > METADATA_MAX_BYTES and not self._oversized:
            self._oversized = True
            self.send_400_response("")
        elif self._came_bytes > METADATA_MAX_BYTES + HTTP_BODY_MAX_BYTES or not self._hold_heads():
            self.transport.abort()

    def _hold_heads(self) -> bool:
        """Count what the heads hold that are not answered. Return whether their sender may have so much."""
        change = sum(self._heads) - self._held
        self._held += change
        return change == 0 or self._others.held.hold(self._sender.who, change)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unexpect()
        self._came.clear()
        self._heads.clear()
        self._hold_heads()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        if self.transport.is_closing():
            return
        if self._others.logged.allow(self._sender.who):
            log.info("http_malformed", who=self._sender.who, **self._sender.details)
        if not self._oversized:
            super().send_400_response(msg)
        elif len(self._heads) > 1:  # it would be taken for the answer to a request before this one
            self.transport.abort()
        else:
            said = b"a head is of %d fields and %d bytes at most" % (HTTP_HEAD_FIELDS, METADATA_MAX_BYTES)
            self.transport.write(_TOO_LARGE % (len(said), said))
            self.transport.pause_reading()  # not closed: over TLS that would first hear the rest of a flood
            asyncio.get_running_loop().call_later(HTTP_FAREWELL_SECONDS, self.transport.abort)

    def on_message_begin(self) -> None:
        if len(self.pipeline) > HTTP_PIPELINE:  # each waits with an object of its own
            self.transport.abort()
            raise LimitExceeded("too many requests were sent ahead")  # or the parser would go on with what has come
        super().on_message_begin()
        self._heading = True
        self._fields = self._field_bytes = 0
        self._heads.append(0)
        self._expect()

    def on_url(self, url: bytes) -> None:
        self._grow(len(url), 0)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, or a trailer."""
        self._fields += 1
        self._grow(len(name) + len(value), FIELD_HELD_BYTES)
        super().on_header(name, value)

    def _grow(self, size: int, beside: int) -> None:
        """Count so many bytes more of the head, and those that they take beside. Raise LimitExceeded."""
        self._field_bytes += size
        if self._heads:  # or its request is answered already, and this is a trailer
            self._heads[-1] += size + beside
        if self._fields > HTTP_HEAD_FIELDS or self._field_bytes > METADATA_MAX_BYTES:
            self._oversized = True
            raise LimitExceeded("the head of a request is larger than may be")

    def on_headers_complete(self) -> None:
        version, hosts = self.parser.get_http_version(), [1 for name, _ in self.headers if name == b"host"]
        # RFC 9112, 2.3 and 3.2: who takes another version, or another host than we, is misled by our answer.
        if version not in _VERSIONS or len(hosts) > 1 or (version == "1.1" and not hosts):
            raise InvalidInput("the request is of another version, or names no host or several")  # which is a 400
        ours = {SENDER: self._sender, HELD: self._others.held}
        self.scope.update(ours)  # type: ignore[typeddict-item]  # beside ASGI's
        super().on_headers_complete()
        self._heading = False

    @property
    def answering(self) -> bool:
        """Whether a request that has come whole waits for its answer."""
        return self._whole > 0

    def on_response_complete(self) -> None:
        self._whole -= 1
        if self._heads:  # or the connection is lost
            self._heads.popleft()
            self._hold_heads()
        super().on_response_complete()

    def on_message_complete(self) -> None:
        self._unexpect()
        self._whole += 1
        self._came_bytes = 0  # what may be there of the next one in the same piece goes free
        super().on_message_complete()

    def _expect(self) -> None:
        """A request must be complete by then."""
        self._unexpect()
        self._deadline = asyncio.get_running_loop().call_later(self._others.request_seconds, self._late)

    def _unexpect(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self.transport.abort()
