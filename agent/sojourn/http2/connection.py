"""One HTTP/2 connection, as its server (RFC 9113). Who is at the other end is known before it begins.

Whoever floods it floods himself: so much is read of one caller before others have a turn, and while the peer does not
take what it is sent, nothing more is read of it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from hyperframe import frame as http2
from hyperframe.exceptions import HyperframeError

from sojourn.http2 import frames, received_frames
from sojourn.http2.frames import CONNECTION_WINDOW_BYTES, FRAME_BYTES, PREFACE, WINDOW_BYTES, WINDOW_MAX_BYTES, Code
from sojourn.http2.headers import BadBlock, Block, Heads
from sojourn.http2.host import ReadingTurn, Visitor
from sojourn.http2.limits import (
    FIRST_BYTES_SECONDS,
    HEADER_BLOCK_SECONDS,
    RESET_STREAMS_KEPT,
    STREAMS_PER_CONNECTION,
)
from sojourn.http2.server import Server
from sojourn.http2.stream import Stream


class _Broken(Exception):
    """The peer has broken HTTP/2: the connection ends with this code."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


class Connection(asyncio.Protocol):
    """One connection and its streams."""

    def __init__(self, server: Server, visitor: Visitor) -> None:
        self.visitor = visitor
        self.message_max = server.message_max
        self.window = WINDOW_BYTES
        self.free = True
        self._server = server
        self._heads = Heads()
        self._streams: dict[int, Stream] = {}
        self._reset: deque[int] = deque(maxlen=RESET_STREAMS_KEPT)  # by us: what still comes of them is no mistake
        self._last = 0  # the newest stream that the peer has opened
        self._over = False
        self._begun = 0  # calls, by the frame that is read
        self._rest = b""  # received, and not read yet
        self._waits = False  # for its turn to be read
        self._unsent = b""  # answers to frames of this turn, which go with the answers to its calls if there are some
        self._reading = True
        self._credit = CONNECTION_WINDOW_BYTES
        self._first_window = WINDOW_BYTES  # of a new stream, for what we send
        self._block: Block | None = None  # a header block that goes on
        self._held = 0  # bytes that are counted for what has come and is not whole
        self._greeted = False
        self._deadline: asyncio.TimerHandle | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    # --- asyncio's side ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's always is
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._preface = PREFACE  # of which so much is still to come
        self._deadline = self._loop.call_later(FIRST_BYTES_SECONDS, self._late)
        transport.write(frames.GREETING)

    def data_received(self, data: bytes) -> None:
        if self._over or self._server.deaf:
            return
        if self._preface:
            said, data = data[: len(self._preface)], data[len(self._preface) :]
            if not self._preface.startswith(said):
                self._finish(Code.PROTOCOL_ERROR)
                return
            self._preface = self._preface[len(said) :]
        self._rest = self._rest + data if self._rest else data
        if self._waits:
            self._read_on(on=False)
        else:
            self._ask()

    def eof_received(self) -> bool:
        """Whoever sends no more hears no more: gRPC keeps both directions open as long as it asks."""
        return False

    def pause_writing(self) -> None:
        self.free = False
        self._read_on(on=False)

    def resume_writing(self) -> None:
        self.free = True
        self._wake()
        if not self._waits:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._end()

    # --- for streams ------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        if data and not self._over:
            self._transport.write(data)

    async def freed(self) -> None:
        """Return when the peer has said that it takes more, or the transport has."""
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    async def pace(self) -> None:
        """Return when it is this caller's turn to have one more message read that has come already."""
        await self._server.paces.turn(self.visitor.who)

    def hold(self, size: int) -> bool:
        """Count so many bytes more, or fewer, that are held of requests. Return whether that is still allowed."""
        return self._server.held.hold(self.visitor.who, size)

    def forget(self, stream: Stream, *, reset: bool) -> None:
        """A stream is answered. `reset`: the peer has been told to send no more of it."""
        if self._streams.pop(stream.number, None) is not None:
            self.hold(-stream.head.held)
            self._server.answered(self.visitor.who)
            if reset:
                self._reset.append(stream.number)

    # --- for the door -----------------------------------------------------------------------------------------------

    def go_away(self) -> None:
        """Tell the peer that this is the end, and close when what is written has gone out.

        None of its calls is said to be unseen: gRPC's C core (Python, C++) makes those again by itself, and where
        nobody listens any more a stream of answers then hangs, past its deadline too.
        """
        if not self._over:
            self._finish(Code.NO_ERROR, frames.LAST_STREAM)

    # --- reading ----------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        self._waits = True
        self._server.turns.ask(self.visitor.who, self)

    def read(self, turn: ReadingTurn) -> bool:
        """Read frames until the turn is over. Return whether there are more of them then."""
        self._waits = False
        if self._over or self._server.deaf:
            return False
        data, at, began = self._rest, 0, monotonic()
        view = memoryview(data)
        try:
            while self.free and len(data) - at >= 9:
                length = int.from_bytes(data[at : at + 3])
                ends = at + 9 + length
                if length > FRAME_BYTES or frames.FIXED_SIZES.get(data[at + 3], length) != length:
                    raise _Broken(Code.FRAME_SIZE_ERROR)
                self._waits = ends <= len(data) and (
                    turn.late or (turn.over and data[at + 3] == received_frames.HEADERS)
                )
                if self._waits or ends > len(data):
                    break
                self._on_frame(received_frames.parse(view[at:ends]))
                at, now = ends, monotonic()
                turn.spend(now - began, self._begun)
                self._begun = 0
                began = now
        except _Broken as error:
            self._finish(error.code)
        except BadBlock:
            self._finish(Code.COMPRESSION_ERROR)
        except HyperframeError:
            self._finish(Code.PROTOCOL_ERROR)
        except BaseException:
            self._transport.abort()
            raise
        else:
            self._rest = data[at:] if at else data
            if not at:
                turn.spend(monotonic() - began)  # a piece of a frame is paid for as well
            if self._unsent:  # behind the first steps of the calls that this turn has begun
                self._loop.call_soon(self.write, b"")
            if not self._waits:
                self._read_on(on=self.free)
            if not self._hold_pieces():
                self._finish(Code.ENHANCE_YOUR_CALM)
        return self._waits

    def _hold_pieces(self) -> bool:
        """Count what has come and waits for its peer, not for us. Return whether this caller may have so much."""
        change = (self._block.size if self._block else 0) + (0 if self._waits else len(self._rest)) - self._held
        self._held += change
        return change == 0 or self.hold(change)

    def _on_frame(self, frame: Any) -> None:
        if not self._greeted:
            self._greet(frame)
        if self._block is not None and not isinstance(frame, http2.ContinuationFrame):
            raise _Broken(Code.PROTOCOL_ERROR)
        read = _READ.get(type(frame))
        if read is not None:  # others, known and unknown, say nothing to a server
            read(self, frame)

    def _greet(self, frame: Any) -> None:
        if not isinstance(frame, http2.SettingsFrame) or "ACK" in frame.flags:
            raise _Broken(Code.PROTOCOL_ERROR)
        self._greeted = True
        self._no_deadline()

    def _no_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        """Settings, or the rest of a header block, have not come in time."""
        if self._greeted and self._waits:  # for its turn: it may have come
            self._deadline = self._loop.call_later(HEADER_BLOCK_SECONDS, self._late)
        else:
            self._finish(Code.ENHANCE_YOUR_CALM if self._greeted else Code.PROTOCOL_ERROR)

    def _opened(self, number: int) -> Stream | None:
        """A stream that the peer has opened, if it is still under way."""
        if number > self._last or number % 2 == 0:
            raise _Broken(Code.PROTOCOL_ERROR)
        return self._streams.get(number)

    def _on_data(self, frame: received_frames.Data) -> None:
        self._credit -= frame.size
        if self._credit < 0:
            raise _Broken(Code.FLOW_CONTROL_ERROR)
        if self._credit < CONNECTION_WINDOW_BYTES // 2:
            self._unsent += frames.more(0, CONNECTION_WINDOW_BYTES - self._credit)
            self._credit = CONNECTION_WINDOW_BYTES
        stream = self._opened(frame.stream_id)
        if stream is None or stream.ended:
            if frame.stream_id not in self._reset:
                self._reset_stream(frame.stream_id, Code.STREAM_CLOSED)
        elif (wrong := stream.receive(frame.data, frame.size, ended=frame.ended)) is not None:
            self._reset_stream(frame.stream_id, wrong)

    def _on_headers(self, frame: http2.HeadersFrame) -> None:
        if "PRIORITY" in frame.flags and frame.depends_on == frame.stream_id:
            raise _Broken(Code.PROTOCOL_ERROR)
        ended = "END_STREAM" in frame.flags
        if "END_HEADERS" in frame.flags:
            self._on_block(frame.stream_id, ended, frame.data)
        else:
            self._block = Block(frame.stream_id, ended, [frame.data])
            self._deadline = self._loop.call_later(HEADER_BLOCK_SECONDS, self._late)

    def _on_continuation(self, frame: http2.ContinuationFrame) -> None:
        block = self._block
        if block is None or block.number != frame.stream_id:
            raise _Broken(Code.PROTOCOL_ERROR)
        if not block.add(frame.data):
            raise _Broken(Code.ENHANCE_YOUR_CALM)
        if "END_HEADERS" in frame.flags:
            self._block = None
            self._no_deadline()
            self._on_block(block.number, block.ended, b"".join(block.parts))

    def _on_block(self, number: int, ended: bool, block: bytes) -> None:
        head = self._heads.read(block)  # in any case: the next block stands on it
        if number <= self._last:
            self._on_trailers(number, ended)
            return
        if number % 2 == 0:
            raise _Broken(Code.PROTOCOL_ERROR)
        self._last = number
        if head.malformed or (ended and head.length):
            self._reset_stream(number, Code.PROTOCOL_ERROR)
        elif len(self._streams) >= STREAMS_PER_CONNECTION:
            self._reset_stream(number, Code.REFUSED_STREAM)
        elif not self.hold(head.held):
            self.hold(-head.held)
            self._reset_stream(number, Code.ENHANCE_YOUR_CALM)  # which gRPC's clients take for RESOURCE_EXHAUSTED
        else:
            stream = self._streams[number] = Stream(self, number, head, self._first_window)
            self._server.streams += 1
            if ended:
                stream.finish()
            self._begun += 1
            stream.task = self._loop.create_task(self._server.handler(head)(stream))
            if head.timeout is not None:
                stream.timer = self._loop.call_later(head.timeout, stream.late)

    def _on_trailers(self, number: int, ended: bool) -> None:
        stream = self._opened(number)
        if stream is None or stream.ended:
            if number not in self._reset:
                raise _Broken(Code.STREAM_CLOSED)
        elif ended:
            stream.finish()
        else:
            self._reset_stream(number, Code.PROTOCOL_ERROR)

    def _on_reset(self, frame: http2.RstStreamFrame) -> None:
        stream = self._opened(frame.stream_id)
        if stream is not None:
            self.forget(stream, reset=False)
            stream.cancel()

    def _on_window(self, frame: received_frames.Window) -> None:
        if frame.stream_id == 0:
            self.window += frame.increment
            if self.window > WINDOW_MAX_BYTES:
                raise _Broken(Code.FLOW_CONTROL_ERROR)
        else:
            stream = self._opened(frame.stream_id)
            if stream is None:
                return
            stream.window += frame.increment
            if stream.window > WINDOW_MAX_BYTES:
                self._reset_stream(frame.stream_id, Code.FLOW_CONTROL_ERROR)
        if self._waiters:
            self._wake()

    def _on_settings(self, frame: http2.SettingsFrame) -> None:
        if "ACK" in frame.flags:
            return
        said = frame.settings
        if not FRAME_BYTES <= said.get(http2.SettingsFrame.MAX_FRAME_SIZE, FRAME_BYTES) < 2**24:
            raise _Broken(Code.PROTOCOL_ERROR)
        if said.get(http2.SettingsFrame.ENABLE_PUSH, 0) > 1:
            raise _Broken(Code.PROTOCOL_ERROR)
        window = said.get(http2.SettingsFrame.INITIAL_WINDOW_SIZE, self._first_window)
        if window > WINDOW_MAX_BYTES:
            raise _Broken(Code.FLOW_CONTROL_ERROR)
        change, self._first_window = window - self._first_window, window
        if change:
            for stream in self._streams.values():
                stream.window += change
                if stream.window > WINDOW_MAX_BYTES:
                    raise _Broken(Code.FLOW_CONTROL_ERROR)
            self._wake()
        self._unsent += frames.SETTINGS_ACK

    def _on_ping(self, frame: received_frames.Ping) -> None:
        if not frame.ack:
            self._unsent += frames.pong(frame.content)

    def _on_priority(self, frame: http2.PriorityFrame) -> None:
        if frame.depends_on == frame.stream_id:
            raise _Broken(Code.PROTOCOL_ERROR)

    def _on_push(self, _frame: http2.PushPromiseFrame) -> None:
        raise _Broken(Code.PROTOCOL_ERROR)

    # --- ends -------------------------------------------------------------------------------------------------------

    def _reset_stream(self, number: int, code: int) -> None:
        """End a stream for a mistake of the peer."""
        self.write(frames.reset(number, code))
        stream = self._streams.get(number)
        if stream is None:
            self._reset.append(number)
        else:
            self.forget(stream, reset=True)
            stream.cancel()

    def _finish(self, code: int, seen: int | None = None) -> None:
        """End the connection, and say why, and up to which stream the peer's calls were looked at."""
        self.write(frames.go_away(self._last if seen is None else seen, code))
        self._end()
        self._transport.close()

    def _end(self) -> None:
        self._over = True
        self._rest, self._block = b"", None
        self._no_deadline()
        self._server.streams -= len(self._streams)
        streams, self._streams = list(self._streams.values()), {}
        self._hold_pieces()
        self.hold(-sum(stream.head.held for stream in streams))
        for stream in streams:
            stream.cancel()
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _read_on(self, *, on: bool) -> None:
        """Read from the connection, or leave what comes in the kernel's buffers."""
        if on != self._reading and not self._transport.is_closing():
            self._reading = on
            (self._transport.resume_reading if on else self._transport.pause_reading)()


_READ: Mapping[type, Callable[[Connection, Any], None]] = {
    received_frames.Data: Connection._on_data,
    http2.HeadersFrame: Connection._on_headers,
    http2.ContinuationFrame: Connection._on_continuation,
    http2.RstStreamFrame: Connection._on_reset,
    received_frames.Window: Connection._on_window,
    http2.SettingsFrame: Connection._on_settings,
    received_frames.Ping: Connection._on_ping,
    http2.PriorityFrame: Connection._on_priority,
    http2.PushPromiseFrame: Connection._on_push,
}
