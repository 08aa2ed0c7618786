"""The package http2 alone, without a socket: frames in any order, mutated, and cut anywhere, on a transport in memory.

SOJOURN_FUZZ_CASES sets how many. A failure prints the frames, made as few and as short as they can be.
"""

import asyncio
import contextlib
import os
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fakes.http2host import LoneHost, MemoryTransport, OneCaller
from fakes.http2peer import (
    BLOCKS,
    FIRST_WINDOW,
    FRAMES,
    FRAMES_AND_ODD_ONES,
    HANDLED,
    TAUGHT,
    WINDOW_BYTES,
    mutated_frames,
)
from harness.examples import examples
from harness.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st
from sojourn.http2.connection import Connection
from sojourn.http2.errors import BadMessage
from sojourn.http2.frames import FRAME_BYTES, GREETING
from sojourn.http2.headers import BadBlock, Head, Heads
from sojourn.http2.server import Handler
from sojourn.http2.stream import Stream

pytestmark = pytest.mark.full

CASES = int(os.environ.get("SOJOURN_FUZZ_CASES", "4000"))
SECONDS = 120 + CASES / 50
HELD = 40_000  # bytes of requests that the caller may have held
CALM = 50  # rounds of the loop in which everything that can go on has gone on


# --- handlers, as there are and as there should not be -----------------------------------------------------------------


async def echo(stream: Stream) -> None:
    while (content := await stream.message()) is not None:
        await stream.send(content)
    stream.end()


async def once(stream: Stream) -> None:
    await stream.answer(await stream.message() or b"none")


async def at_once(stream: Stream) -> None:
    content = await stream.message() or b""
    for size in (0, 10, FRAME_BYTES):
        stream.send_now(bytes(size))
    if not stream.answer_now(content):
        await stream.answer(content)


async def large(stream: Stream) -> None:
    await stream.answer(bytes(70_000))


async def unread(stream: Stream) -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await stream.answer(b"unread")


async def over_and_over(stream: Stream) -> None:
    """Answers although it has answered."""
    await stream.answer(b"1")
    stream.fail(7, "no")
    await stream.answer(b"2")
    await stream.send(bytes(100))
    stream.send_now(b"3")
    stream.refuse(404)
    stream.end()


async def refused(stream: Stream) -> None:
    stream.fail(7, "é%" * 3_000, [("sojourn-code", "refused")])


async def never(stream: Stream) -> None:
    del stream
    await asyncio.Event().wait()


HANDLERS = dict(zip(HANDLED, (echo, once, at_once, large, unread, over_and_over, refused, never), strict=True))

# --- what holds whatever is sent ---------------------------------------------------------------------------------------


class Wire(MemoryTransport):
    """Notes what is written behind the end, and ends as a socket does: its protocol hears of it a round later."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self.faults: list[str] = []
        self.lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.ended or self.lost:
            self.faults.append(f"written behind the end: {bytes(data)!r}")
        super().write(data)

    def close(self) -> None:
        self._end("close")

    def abort(self) -> None:
        self._end("abort")

    def lose(self) -> None:
        if not self.lost:
            self.lost = True
            self._connection.connection_lost(None)

    def _end(self, how: str) -> None:
        if not self.ended:
            self.ended = how
            asyncio.get_running_loop().call_soon(self.lose)


@dataclass
class Grants:
    """What a peer has allowed and asked for, at the most, by a reading of its bytes that knows nothing of the server's."""

    window: int = WINDOW_BYTES
    first: int = WINDOW_BYTES
    more: Counter[int] = field(default_factory=Counter)  # by stream
    opened: set[int] = field(default_factory=set)
    pings: int = 0
    frames: int = 0
    whole: bool = True  # settings have come, and nothing of a frame or of a header block is still to come

    @classmethod
    def of(cls, sent: bytes) -> "Grants":
        found, data = cls(), sent[len(PREFACE) :]
        while len(data) >= 9:
            size, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
            stream = int.from_bytes(data[5:9], "big") & 2**31 - 1
            if len(data) < 9 + size:
                break
            found._read(kind, flags, stream, data[9 : 9 + size])
            data = data[9 + size :]
        found.whole = found.whole and found.frames > 0 and not data
        return found

    def _read(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        self.frames += 1
        if kind in {HEADERS, CONTINUATION}:
            self.opened.add(stream)
            self.whole = bool(flags & END_HEADERS)
        elif kind == WINDOW_UPDATE and len(body) == 4:
            more = int.from_bytes(body, "big") & 2**31 - 1
            if stream:
                self.more[stream] += more
            else:
                self.window += more
        elif kind == SETTINGS:
            for at in range(0, len(body) - 5, 6):
                if body[at : at + 2] == FIRST_WINDOW.to_bytes(2, "big"):
                    self.first = max(self.first, int.from_bytes(body[at + 2 : at + 6], "big"))
        elif kind == PING:
            self.pings += not flags & ACK


def check_answers(frames: list[tuple[int, int, int, bytes]], granted: Grants) -> None:
    """Raise AssertionError if what a server has sent is no HTTP/2, more than was allowed, or an answer too many."""
    decoder = Decoder()
    over, begun, sizes = set[int](), set[int](), defaultdict[int, int](int)
    gone = pongs = 0
    for kind, flags, stream, body in frames:
        assert not gone, "something was sent behind GOAWAY"
        assert len(body) <= FRAME_BYTES
        if kind in {HEADERS, DATA}:
            assert stream in granted.opened, "an answer to what nobody has asked"
            assert stream not in over, f"stream {stream} was answered behind its end"
        if kind == HEADERS:
            check_head(dict(decoder.decode(body)), begun=stream in begun, ended=bool(flags & END_STREAM))  # type: ignore[arg-type]
            begun.add(stream)
        elif kind == DATA:
            assert stream in begun, "a message stood before its head"
            sizes[stream] += len(body)
        elif kind == WINDOW_UPDATE:
            assert 0 < int.from_bytes(body, "big")
            assert stream not in over, "a window was opened behind the end"
        else:
            assert kind in {RST_STREAM, SETTINGS, PING, GOAWAY}
        pongs += kind == PING
        gone += kind == GOAWAY
        if stream and (kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM)):
            over.add(stream)
    assert pongs <= granted.pings
    assert sum(sizes.values()) <= granted.window
    assert all(size <= granted.first + granted.more[stream] for stream, size in sizes.items())


def check_head(fields: dict[str, str], *, begun: bool, ended: bool) -> None:
    """Raise AssertionError if a header block is neither a beginning nor an end."""
    assert (":status" in fields) is not begun, "two heads, or none"
    assert ended is ("grpc-status" in fields or fields[":status"] in {"405", "415"})


class Encounter:
    """A connection with a host of its own, and the peer that is at its other end."""

    def __init__(self, lengths: list[tuple[int, int]]) -> None:
        self.faults: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.host = LoneHost(
            {path: self._watched(handler) for path, handler in HANDLERS.items()},
            message_max=30_000,
            lengths=lengths,
            each=HELD,
        )
        self.connection = Connection(self.host.server, OneCaller())
        self.wire = Wire(self.connection)
        self.sent = b""
        self.largest = 0  # of what came at once
        self._coming = deque[bytes]()

    def _watched(self, handler: Handler) -> Handler:
        async def watched(stream: Stream) -> None:
            self.tasks.append(asyncio.current_task())  # type: ignore[arg-type]  # a coroutine of a task
            try:
                await handler(stream)
            except BadMessage as error:
                stream.fail(error.status, str(error))

        return watched

    async def run(self, acts: list[bytes | str]) -> None:
        """Do all of it, and check that nothing is left behind."""
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.faults.append(str(context)))
        self.connection.connection_made(self.wire)
        for act in acts:
            await self._do(act)
        await self._calm()
        await self._check_alive()
        self.wire.lose()
        await self._calm()
        self._check_left()

    async def _do(self, act: bytes | str) -> None:
        match act:
            case bytes():
                self._coming.append(act)
            case "round":
                await asyncio.sleep(0)
            case "rounds":
                await self._calm()
            case "full" if not self.wire.lost:
                self.connection.pause_writing()
            case "drained" if not self.wire.lost:
                self.connection.resume_writing()
            case "go away" if not self.wire.lost:
                self.connection.go_away()
            case "lost":
                self.wire.lose()
        self._receive()

    def _receive(self) -> None:
        """What has been sent comes while it is read from, and no longer."""
        while self._coming and self.wire.reading and not self.wire.ended and not self.wire.lost:
            data = self._coming.popleft()
            self.sent += data
            self.largest = max(self.largest, len(data))
            self.connection.data_received(data)

    async def _calm(self) -> None:
        for _ in range(CALM):
            await asyncio.sleep(0)
            self._receive()
        while self.host.turns.waiting:
            await asyncio.sleep(0)
            self._receive()

    async def _check_alive(self) -> None:
        """A connection that has not ended answers, as soon as its peer takes answers."""
        if self.wire.ended or self.wire.lost:
            return
        self.connection.resume_writing()
        await self._calm()
        if self.wire.ended or not Grants.of(self.sent).whole:
            return
        assert self.wire.reading
        before = len(self.wire.written)
        self._coming.append(frame(PING, body=b"alive???"))
        await self._calm()
        assert frame(PING, ACK, 0, b"alive???") in self.wire.written[before:]

    def _check_left(self) -> None:
        for task in self.tasks:
            assert task.done(), "a call goes on although its connection has ended"
            assert task.cancelled() or task.exception() is None
        assert ([], []) == (self.faults, self.wire.faults)
        assert ({}, 0, {}) == (dict(self.host.held), self.host.server.streams, self.connection._streams)
        assert (b"", None, set()) == (self.connection._rest, self.connection._deadline, self.connection._waiters)
        # What is not read yet is of two reads at most, and is counted with the second: then its connection ends.
        assert self.host.held.most <= HELD + max(FRAME_BYTES, 2 * self.largest)
        assert self.wire.written.startswith(GREETING)
        check_answers(self.wire.frames(), Grants.of(self.sent))


def meet(acts: list[bytes | str], lengths: list[tuple[int, int]]) -> None:
    """Have a server meet this peer, in turns of these lengths. Raise whatever does not hold, with what was sent."""
    try:
        asyncio.run(Encounter(lengths).run(acts))
    except BaseException as error:
        error.add_note(f"sent: {acts!r:.4000}\nturns: {lengths!r}")
        raise


LENGTHS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=4)


@pytest.mark.timeout(SECONDS)
@examples(CASES // 8)
@given(FRAMES, LENGTHS)
def test_frames_in_any_order(acts: list[bytes | str], lengths: list[tuple[int, int]]) -> None:
    """However calls go on and end, no stream is answered twice, nothing is sent behind an end, and all held is let go."""
    meet(acts, lengths)


@pytest.mark.timeout(SECONDS)
@examples(CASES // 16)
@given(FRAMES_AND_ODD_ONES, LENGTHS)
def test_odd_frames(acts: list[bytes | str], lengths: list[tuple[int, int]]) -> None:
    """Whatever else comes between the frames of calls, the same holds."""
    meet(acts, lengths)


@pytest.mark.timeout(SECONDS)
@examples(CASES // 16)
@given(mutated_frames(), LENGTHS)
def test_mutated_frames(acts: list[bytes | str], lengths: list[tuple[int, int]]) -> None:
    """However frames are changed and cut, nothing raises, and a connection goes on or ends with all that it has held."""
    meet(acts, lengths)


@pytest.mark.timeout(SECONDS)
@examples(CASES // 16)
@given(st.lists(BLOCKS, min_size=1, max_size=12))
def test_heads_that_are_kept(blocks: list[bytes]) -> None:
    """A head that was kept says what its block says, as a reader that keeps none finds, and as hpack reads it."""
    keeping, forgetful, plain = Heads(), Heads(), Decoder(max_header_list_size=64 * 1024)
    for block in [TAUGHT, *blocks]:
        forgetful._kept.clear()
        found, anew = list(_read(keeping, block)), list(_read(forgetful, block))
        assert found == anew
        if not found:
            return
        fields = plain.decode(block, raw=True)
        if not found[0].malformed:
            assert [each for each in fields if each[0][:1] != b":"] == list(found[0].fields)


def _read(heads: Heads, block: bytes) -> Iterator[Head]:
    """The head, or nothing if it cannot be read."""
    with contextlib.suppress(BadBlock):
        yield heads.read(block)
