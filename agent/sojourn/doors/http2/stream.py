"""One call of gRPC on an HTTP/2 connection: its requests as messages, and its answer."""

import asyncio
import zlib
from collections import deque
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import quote

from sojourn.doors.http2 import frames
from sojourn.doors.http2.frames import FRAME_BYTES, Code
from sojourn.doors.http2.heads import Head
from sojourn.doors.visitor import Visitor
from sojourn.errors import InvalidInput, LimitExceeded, SojournError, Unimplemented
from sojourn.limits import REQUEST_WINDOW_BYTES, STATUS_TEXT_MAX_BYTES

_PREFIX = 5  # of a message: whether it is compressed, and its length
_GZIP = 16 + zlib.MAX_WBITS
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")  # in grpc-message
DEADLINE_EXCEEDED = 4


class Connection(Protocol):
    """What a stream needs of its connection."""

    visitor: Visitor
    free: bool  # whether more may be written now
    window: int  # bytes of messages that the peer takes on the connection
    message_max: int  # bytes of a request's message

    def write(self, data: bytes) -> None: ...
    async def freed(self) -> None: ...
    def hold(self, size: int) -> bool: ...
    def forget(self, stream: "Stream", *, reset: bool) -> None: ...


class Stream:
    """A call. Its handler reads `message`, and then answers by `answer`, or by `send` and `end`, or by `fail`."""

    __slots__ = (
        "_begun",
        "_connection",
        "_credit",
        "_fault",
        "_left",
        "_messages",
        "_part",
        "_waiter",
        "ended",
        "head",
        "number",
        "over",
        "task",
        "timer",
        "window",
    )

    def __init__(self, connection: Connection, number: int, head: Head, window: int) -> None:
        """`window`: bytes that the peer takes on the stream."""
        self._connection = connection
        self.number = number
        self.head = head
        self.window = window
        self.over = False  # nothing more is sent
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._begun = False
        self.ended = False  # the peer sends no more
        self._fault: SojournError | None = None
        self._left = head.length  # bytes that are still to come, if the head says
        self._credit = REQUEST_WINDOW_BYTES  # bytes that the peer may send
        self._messages: deque[bytes] = deque()
        self._part = b""
        self._waiter: asyncio.Future[None] | None = None

    @property
    def visitor(self) -> Visitor:
        return self._connection.visitor

    # --- the connection's side --------------------------------------------------------------------------------------

    def receive(self, data: bytes, size: int, *, ended: bool) -> int | None:
        """Take a DATA frame of `size` bytes with its padding. Return the code of what the peer did wrong, if it did."""
        self._credit -= size
        if self._credit < 0:
            return Code.FLOW_CONTROL_ERROR
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (ended and self._left):
                return Code.PROTOCOL_ERROR
        if not self.over and self._fault is None:
            self._take(data)
        if ended:
            self.finish()
        else:
            self._wake()
            if not self._messages:
                self._grant()
        return None

    def _take(self, data: bytes) -> None:
        """Part what has come into messages, and keep the rest."""
        held = -len(self._part)
        if self._part:
            data, self._part = self._part + data, b""
        at = 0
        while at < len(data):
            begins = at + _PREFIX
            length = int.from_bytes(data[at + 1 : begins], "big") if begins <= len(data) else 0
            if length > self._connection.message_max:
                self._fault = LimitExceeded(f"a request is larger than {self._connection.message_max} bytes")
                break
            if begins + length > len(data):
                self._part = data[at:]
                break
            try:
                message = self._unpacked(data[at], data[begins : begins + length])
            except SojournError as error:
                self._fault = error
                break
            self._messages.append(message)
            held += len(message)
            at = begins + length
        held += len(self._part)
        if held and not self._connection.hold(held):
            self._drop()
            self._fault = LimitExceeded("too much is held of requests that are under way")

    def _unpacked(self, flag: int, data: bytes) -> bytes:
        """Raise SojournError."""
        if flag == 0:
            return data
        if flag > 1 or self.head.encoding != b"gzip":
            raise Unimplemented("a message is packed in a way that is not known: gzip is, and identity")
        most = self._connection.message_max
        try:
            unpacking = zlib.decompressobj(wbits=_GZIP)
            found = unpacking.decompress(data, most + 1)
        except zlib.error:
            raise InvalidInput("a message that is said to be packed by gzip is not") from None
        if len(found) > most:
            raise LimitExceeded(f"a request is larger than {most} bytes")
        return found

    def finish(self) -> None:
        """The peer sends no more."""
        self.ended = True
        if self._part and self._fault is None:
            self._fault = InvalidInput("the request ended in the middle of a message")
        self._wake()

    def cancel(self) -> None:
        """Nobody waits for an answer any more."""
        self.over = True
        self._let_go()
        if self.task is not None:
            self.task.cancel()

    def late(self) -> None:
        """The time that the caller gave is over."""
        if self.over:
            return
        if self.task is not None:
            self.task.cancel()
        self.fail(DEADLINE_EXCEEDED, "the deadline of the call has passed")

    # --- the handler's side -----------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether `message` would have to wait."""
        return not self._messages and not self.ended and self._fault is None

    async def message(self) -> bytes | None:
        """The next message of the request, or None if there are no more. Raise SojournError for a malformed one."""
        while not self._messages:
            if self._fault is not None:
                raise self._fault
            if self.ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        if message:
            self._connection.hold(-len(message))
        if not self._messages and not self.ended:
            self._grant()
        return message

    async def send(self, content: bytes) -> None:
        """Send one message, as soon as the peer takes it."""
        size = len(content) + _PREFIX
        if not self._fits(size):
            await self._send_in_pieces(content)
        elif not self.over:
            self._spend(size)
            made = frames.message(self.number, content)
            self._connection.write(made if self._begun else frames.begin(self.number) + made)
            self._begun = True

    async def answer(self, content: bytes) -> None:
        """Send the one message of an answer, and end the call well."""
        size = len(content) + _PREFIX
        if self._begun or not self._fits(size):
            await self.send(content)
            self.end()
        elif not self.over:
            self._spend(size)
            number = self.number
            self._close(frames.begin(number) + frames.message(number, content) + frames.done(number))

    def end(self) -> None:
        """End the call well."""
        if not self.over:
            done = frames.done(self.number)
            self._close(done if self._begun else frames.begin(self.number) + done)

    def fail(self, status: int, text: str, more: Iterable[tuple[str, str]] = ()) -> None:
        """End the call with a status of gRPC, by its number, and what else is said. Values of `more` are ASCII."""
        if self.over:
            return
        said = quote(text.encode()[:STATUS_TEXT_MAX_BYTES].decode(errors="ignore"), safe=_PLAIN)
        fields = [("grpc-status", str(status)), ("grpc-message", said), *more]
        if not self._begun:
            fields[:0] = [(":status", "200"), ("content-type", "application/grpc")]
        self._close(frames.last(self.number, fields))

    def refuse(self, status: int) -> None:
        """Answer with a status of HTTP: it is no call of gRPC."""
        if not self.over:
            self._close(frames.last(self.number, [(":status", str(status))]))

    # --- of its own -------------------------------------------------------------------------------------------------

    def _fits(self, size: int) -> bool:
        """Whether a message of so many bytes can go now, in one frame."""
        connection = self._connection
        return connection.free and size <= self.window and size <= connection.window and size <= FRAME_BYTES

    def _spend(self, size: int) -> None:
        self.window -= size
        self._connection.window -= size

    async def _send_in_pieces(self, content: bytes) -> None:
        left = memoryview(b"\x00" + len(content).to_bytes(4, "big") + content)
        while left and not self.over:
            size = min(len(left), self.window, self._connection.window, FRAME_BYTES)
            if size <= 0 or not self._connection.free:
                await self._connection.freed()
                continue
            self._spend(size)
            made = frames.data(self.number, bytes(left[:size]))
            self._connection.write(made if self._begun else frames.begin(self.number) + made)
            self._begun = True
            left = left[size:]

    def _close(self, end: bytes) -> None:
        self.over = True
        self._let_go()
        self._connection.write(end if self.ended else end + frames.reset(self.number, Code.NO_ERROR))
        self._connection.forget(self, reset=not self.ended)

    def _let_go(self) -> None:
        """Free what is held of the request."""
        if self.timer is not None:
            self.timer.cancel()
        self._drop()

    def _drop(self) -> None:
        if self._messages or self._part:
            self._connection.hold(-sum(map(len, self._messages)) - len(self._part))
            self._messages.clear()
            self._part = b""

    def _grant(self) -> None:
        """Let the peer send as much as it might at first, once it has sent half of that."""
        if self._credit < REQUEST_WINDOW_BYTES // 2 and not self.over:
            self._connection.write(frames.more(self.number, REQUEST_WINDOW_BYTES - self._credit))
            self._credit = REQUEST_WINDOW_BYTES

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
