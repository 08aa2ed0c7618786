"""One call of gRPC on an HTTP/2 connection: its requests as messages, and its answer."""

import asyncio
import zlib
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import quote

from sojourn.http2 import frames
from sojourn.http2.errors import BadMessage, MalformedMessage, MessageOverLimit, UnknownPacking
from sojourn.http2.frames import FRAME_BYTES, Code
from sojourn.http2.headers import Head
from sojourn.http2.host import Visitor
from sojourn.http2.limits import REQUEST_WINDOW_BYTES, STATUS_TEXT_MAX_BYTES
from sojourn.http2.statuses import STATUSES

_PREFIX = 5  # of a message: whether it is compressed, and its length
_PACKINGS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}  # as zlib names them
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")  # in grpc-message


class Connection(Protocol):
    """What a stream needs of its connection."""

    visitor: Visitor
    free: bool  # whether more may be written now
    window: int  # bytes of messages that the peer takes on the connection
    message_max: int  # bytes of a request's message

    def write(self, data: bytes) -> None: ...
    async def freed(self) -> None: ...
    async def pace(self) -> None: ...
    def hold(self, size: int) -> bool: ...
    def forget(self, stream: "Stream", *, reset: bool) -> None: ...


class Stream:
    """A call. Its handler reads `message`, and then answers by `answer`, or by `send` and `end`, or by `fail`."""

    __slots__ = (
        "_begun",
        "_connection",
        "_credit",
        "_fault",
        "_got",
        "_heard",
        "_left",
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
        self._fault: BadMessage | None = None
        self._left = head.length  # bytes that are still to come, if the head says
        self._credit = REQUEST_WINDOW_BYTES  # bytes that the peer may send
        self._got = bytearray()  # of the request, and not read yet
        self._heard = False  # a message has been read
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
        if data and not self.over and self._fault is None:
            self._keep(data)
        if ended:
            self.finish()
        else:
            self._wake()
            if not self._whole():
                self._grant()
        return None

    def _keep(self, data: bytes) -> None:
        """Keep what has come until it is read: many small messages as they came are much less than each for itself."""
        self._got += data
        if not self._connection.hold(len(data)):
            self._drop()
            self._fault = MessageOverLimit("too much is held of requests that are under way")

    def _whole(self) -> bool:
        """Whether the next message has come whole, or what is wrong with it is known."""
        got = self._got
        if len(got) < _PREFIX or self._fault is not None:
            return self._fault is not None
        length = int.from_bytes(got[1:_PREFIX])
        if length > self._connection.message_max:
            self._fault = MessageOverLimit(f"a request is larger than {self._connection.message_max} bytes")
            return True
        return len(got) >= _PREFIX + length

    def _taken(self) -> bytes:
        """The next message, which has come whole. Raise BadMessage for what cannot be unpacked."""
        got = self._got
        ends = _PREFIX + int.from_bytes(got[1:_PREFIX])
        flag, data = got[0], bytes(memoryview(got)[_PREFIX:ends])
        del got[:ends]
        self._connection.hold(-ends)
        return data if flag == 0 else self._unpacked(flag, data)

    def _unpacked(self, flag: int, data: bytes) -> bytes:
        """Raise BadMessage."""
        packing = _PACKINGS.get(self.head.encoding)
        if flag > 1 or packing is None:
            raise UnknownPacking("a message is packed in a way that is not known: gzip and deflate are, and identity")
        most = self._connection.message_max
        try:
            unpacking = zlib.decompressobj(wbits=packing)
            found = unpacking.decompress(data, most + 1)
        except zlib.error:
            raise MalformedMessage("a message is not packed as its call says") from None
        if len(found) > most:
            raise MessageOverLimit(f"a request is larger than {most} bytes")
        if not unpacking.eof:
            raise MalformedMessage("a packed message ends in the middle")
        return found

    def finish(self) -> None:
        """The peer sends no more."""
        self.ended = True
        self._wake()

    def cancel(self) -> None:
        """Nobody waits for an answer any more."""
        self.over = True
        self._let_go()
        self._stop()

    def late(self) -> None:
        """The time that the caller gave is over."""
        if self.over:
            return
        self._stop()
        self.fail(STATUSES["DEADLINE_EXCEEDED"], "the deadline of the call has passed")

    # --- the handler's side -----------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether `message` would have to wait."""
        return not self.ended and not self._whole()

    async def message(self) -> bytes | None:
        """The next message of the request, or None if there are no more. Raise BadMessage for a malformed one."""
        if self._heard and not self.waiting:
            await self._connection.pace()  # others have their turn between the messages of a call
        while not self._whole():
            if self.ended:
                if self._got:
                    self._fault = MalformedMessage("the request ended in the middle of a message")
                    break
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._fault is not None:
            raise self._fault
        self._heard = True
        try:
            message = self._taken()
        except BadMessage as error:
            self._fault = error
            raise
        if not self.ended and not self._whole():
            self._grant()
        return message

    async def send(self, content: bytes) -> None:
        """Send one message, as soon as the peer takes it."""
        if not self.send_now(content):
            await self._send_in_pieces(content)

    def send_now(self, content: bytes) -> bool:
        """Send one message if the peer takes all of it now, and return whether it was sent. Not while `send` waits."""
        size = len(content) + _PREFIX
        if self.over or not self._fits(size):
            return False
        self._write(size, frames.message(self.number, content))
        return True

    async def answer(self, content: bytes) -> None:
        """Send the one message of an answer, and end the call well, as soon as the peer takes it."""
        if not self.answer_now(content):
            await self.send(content)
            self.end()

    def answer_now(self, content: bytes) -> bool:
        """As `answer`, if the peer takes all of it now. Return whether nothing is left to do."""
        size = len(content) + _PREFIX
        if self.over:
            return True
        if self._begun or not self._fits(size):
            return False
        self._spend(size)
        number = self.number
        self._close(frames.begin(number) + frames.message(number, content) + frames.done(number))
        return True

    def end(self) -> None:
        """End the call well."""
        if not self.over:
            done = frames.done(self.number)
            self._close(done if self._begun else frames.begin(self.number) + done)

    def fail(self, status: int, text: str, more: Iterable[tuple[str, str]] = ()) -> None:
        """End the call with a status of gRPC, by its number, and what else is said. Values of `more` are ASCII."""
        if self.over:
            return
        said = quote(text.encode(errors="replace")[:STATUS_TEXT_MAX_BYTES].decode(errors="ignore"), safe=_PLAIN)
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

    def _write(self, size: int, frame: bytes) -> None:
        """Send a frame of so many bytes of messages, behind the answer's head."""
        self._spend(size)
        self._connection.write(frame if self._begun else frames.begin(self.number) + frame)
        self._begun = True

    async def _send_in_pieces(self, content: bytes) -> None:
        """Holds no copy of what many streams may share, and of whose readers some may never read."""
        head, left = b"\x00" + len(content).to_bytes(4), memoryview(content)
        while (head or left) and not self.over:
            size = min(len(head) + len(left), self.window, self._connection.window, FRAME_BYTES)
            if size <= 0 or not self._connection.free:
                await self._connection.freed()
                continue
            piece = head[:size]
            rest = size - len(piece)
            self._write(size, frames.data(self.number, piece + left[:rest]))
            head, left = head[size:], left[rest:]

    def _close(self, end: bytes) -> None:
        self.over = True
        self._let_go()
        self._connection.write(end if self.ended else end + frames.reset(self.number, Code.NO_ERROR))
        self._connection.forget(self, reset=not self.ended)

    def _stop(self) -> None:
        """Cancel the handler. Nothing here leads to it any more, so that what its frames hold goes with it."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()

    def _let_go(self) -> None:
        """Free what is held of the request."""
        if self.timer is not None:
            self.timer.cancel()
        self._drop()

    def _drop(self) -> None:
        if self._got:
            self._connection.hold(-len(self._got))
            self._got.clear()

    def _grant(self) -> None:
        """Let the peer send as much as it might at first, once it has sent half of that."""
        if self._credit < REQUEST_WINDOW_BYTES // 2 and not self.over:
            self._connection.write(frames.more(self.number, REQUEST_WINDOW_BYTES - self._credit))
            self._credit = REQUEST_WINDOW_BYTES

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
