"""http2/stream.py: one call, on a connection that keeps what is written."""

import asyncio
import gzip
import tracemalloc
from dataclasses import replace

import pytest
from harness.http2 import DATA, END_STREAM, HEADERS, RST_STREAM, WINDOW_UPDATE, message
from harness.looking import idle
from hpack import Decoder
from sojourn.http2.errors import MalformedMessage, MessageOverLimit, UnknownPacking
from sojourn.http2.frames import FRAME_BYTES
from sojourn.http2.headers import Head
from sojourn.http2.limits import REQUEST_WINDOW_BYTES, STATUS_TEXT_MAX_BYTES
from sojourn.http2.stream import Stream

MESSAGE_MAX = 1_000
HEAD = Head(b"POST", "/a/b", b"application/grpc", b"identity")
ROOM = 1 << 20
FLOW, PROTOCOL = 3, 1


class FakeConnection:
    """Has room for all that is sent, unless a test takes some."""

    def __init__(self):
        self.visitor, self.message_max = object(), MESSAGE_MAX
        self.free, self.window = True, ROOM
        self.held, self.may_hold, self.forgotten = 0, True, []
        self.written, self._freed = b"", asyncio.Event()

    def write(self, data):
        self.written += data

    async def pace(self):
        await asyncio.sleep(0)

    async def freed(self):
        await self._freed.wait()
        self._freed.clear()

    def free_up(self):
        self._freed.set()

    def hold(self, size):
        self.held += size
        return self.may_hold

    def forget(self, stream, *, reset):
        self.forgotten.append((stream.number, reset))

    def frames(self):
        """(kind, flags, body) of all that was written since; header blocks as their fields."""
        found = []
        while self.written:
            ends = 9 + int.from_bytes(self.written[:3], "big")
            kind, flags, number = self.written[3], self.written[4], int.from_bytes(self.written[5:9], "big")
            body, self.written = self.written[9:ends], self.written[ends:]
            assert 1 == number
            if kind == HEADERS:
                decoder = Decoder()
                decoder.max_allowed_table_size = 0
                body = decoder.decode(body)
            found.append((kind, flags & END_STREAM, body))
        return found


@pytest.fixture
def connection():
    return FakeConnection()


@pytest.fixture
def stream(connection):
    return Stream(connection, 1, HEAD, ROOM)


def make(connection, **head):
    return Stream(connection, 1, replace(HEAD, **head), ROOM)


def take(stream, data, *, ended=False):
    return stream.receive(data, len(data), ended=ended)


async def refusal(stream, error):
    with pytest.raises(error) as caught:
        await stream.message()
    return str(caught.value)


BEGIN = (HEADERS, 0, [(":status", "200"), ("content-type", "application/grpc")])
DONE = (HEADERS, END_STREAM, [("grpc-status", "0")])
STOP = (RST_STREAM, 0, bytes(4))


class TestRequest:
    async def test_messages(self, connection, stream):
        """Messages are given in their order, as they become whole, and then None; nothing is held of them."""
        sent = [b"", b"a", b"b" * MESSAGE_MAX]
        for byte in b"".join(map(message, sent)):
            assert take(stream, bytes((byte,))) is None
        assert not stream.waiting
        assert sent == [await stream.message() for _ in sent]
        assert (True, 0) == (stream.waiting, connection.held)
        take(stream, b"", ended=True)
        assert (False, None, None) == (stream.waiting, await stream.message(), await stream.message())

    async def test_waits(self, connection, stream):
        """Whoever reads waits for a whole message, or for the end."""
        reading = asyncio.ensure_future(stream.message())
        await asyncio.sleep(0)
        take(stream, message(b"abc")[:-1])
        await asyncio.sleep(0)
        assert (False, True, 7) == (reading.done(), stream.waiting, connection.held)
        take(stream, b"c")
        assert b"abc" == await reading
        reading = asyncio.ensure_future(stream.message())
        await asyncio.sleep(0)
        stream.finish()
        assert await reading is None

    async def test_ends_in_the_middle(self, stream):
        """A request that ends in the middle of a message is refused, again and again."""
        take(stream, message(b"abc")[:-1], ended=True)
        for _ in range(2):
            assert "ended in the middle" in await refusal(stream, MalformedMessage)

    async def test_too_large(self, connection, stream):
        """A message that says that it is larger than may be is refused before it has come."""
        take(stream, message(b"", size=MESSAGE_MAX + 1)[:5])
        assert not stream.waiting
        assert f"larger than {MESSAGE_MAX} bytes" in await refusal(stream, MessageOverLimit)
        take(stream, b"x" * 100)
        assert 5 == connection.held

    async def test_too_large_and_over(self, stream):
        """A message that is cut off after it has said that it is too large is refused for that."""
        take(stream, message(b"", size=MESSAGE_MAX + 1)[:5], ended=True)
        assert f"larger than {MESSAGE_MAX} bytes" in await refusal(stream, MessageOverLimit)

    async def test_of_many_bytes(self, connection, stream):
        """A message may have more than 16 MiB, if its limit is more: all four bytes of its length count."""
        connection.message_max = 2**25
        content = b"x" * (2**24 + 7)
        sent = message(content)
        for at in range(0, len(sent), FRAME_BYTES):
            assert stream.waiting
            take(stream, sent[at : at + FRAME_BYTES])
        assert content == await stream.message()

    async def test_too_much_held(self, connection, stream):
        """If too much is held of its user's requests, the call is refused, and what was held of it is let go."""
        connection.may_hold = False
        take(stream, message(b"abc"))
        assert "too much is held" in await refusal(stream, MessageOverLimit)
        take(stream, message(b"more"))
        assert 0 == connection.held

    @pytest.mark.parametrize(
        ("length", "pieces", "code"),
        [
            (5, [b"12345"], None),
            (5, [b"123", b"45"], None),
            (5, [b"123"], PROTOCOL),
            (5, [b"123", b"456"], PROTOCOL),
            (0, [b""], None),
            (0, [b"1"], PROTOCOL),
            (None, [b"123", b"456"], None),
        ],
    )
    async def test_length(self, connection, length, pieces, code):
        """A request is as long as its head says, if it does."""
        stream = make(connection, length=length)
        found = [take(stream, piece, ended=piece is pieces[-1]) for piece in pieces]
        assert [None] * (len(pieces) - 1) + [code] == found

    async def test_window(self, connection, stream):
        """A peer may send ahead as much as the window, its padding too; with half of it gone, and nothing whole, it gets
        as much again.
        """
        stream.receive(b"", REQUEST_WINDOW_BYTES // 2, ended=False)
        assert [] == connection.frames()
        stream.receive(b"", 1, ended=False)
        assert [(WINDOW_UPDATE, 0, (REQUEST_WINDOW_BYTES // 2 + 1).to_bytes(4, "big"))] == connection.frames()
        assert stream.receive(b"", REQUEST_WINDOW_BYTES // 2, ended=False) is None
        connection.frames()
        take(stream, message(b"whole"))
        assert stream.receive(b"", REQUEST_WINDOW_BYTES // 2 - 10, ended=False) is None
        assert [] == connection.frames()
        assert FLOW == stream.receive(b"", 1, ended=False)

    async def test_window_after_a_message(self, connection, stream):
        """Whoever has read all that has come lets the peer send on; at the end there is nothing to be sent."""
        for ended, told in ((False, 1), (True, 0)):
            made = Stream(connection, 1, HEAD, ROOM)
            take(made, message(b"a"))
            made.receive(b"", REQUEST_WINDOW_BYTES // 2, ended=ended)
            assert [] == connection.frames()
            await made.message()
            assert told == len(connection.frames())

    async def test_no_window_for_what_is_over(self, connection, stream):
        """A call that is over lets nothing more be sent, and keeps nothing of what still comes."""
        stream.end()
        connection.frames()
        assert take(stream, message(b"late") + bytes(REQUEST_WINDOW_BYTES // 2)) is None
        assert ([], 0) == (connection.frames(), connection.held)


class TestPacked:
    @pytest.mark.parametrize("size", [0, 1, MESSAGE_MAX])
    async def test_unpacked(self, connection, size):
        """A packed message is unpacked, up to the limit."""
        stream = make(connection, encoding=b"gzip")
        take(stream, message(gzip.compress(b"a" * size), flag=1) + message(b"plain"))
        assert [b"a" * size, b"plain"] == [await stream.message() for _ in range(2)]
        assert 0 == connection.held

    @pytest.mark.parametrize(
        ("encoding", "flag", "content", "error", "said"),
        [
            (b"gzip", 1, gzip.compress(b"a" * (MESSAGE_MAX + 1)), MessageOverLimit, "larger than 1000 bytes"),
            (b"gzip", 1, gzip.compress(b"abc")[:-1], MalformedMessage, "ends in the middle"),
            (b"gzip", 1, b"abc", MalformedMessage, "not packed as its call says"),
            (b"gzip", 2, gzip.compress(b"abc"), UnknownPacking, "packed in a way that is not known"),
            (b"identity", 1, gzip.compress(b"abc"), UnknownPacking, "packed in a way that is not known"),
        ],
        ids=["too-large", "cut", "not-packed", "unknown-flag", "not-said"],
    )
    async def test_refused(self, connection, encoding, flag, content, error, said):
        """What cannot be unpacked is refused, again and again, and not held."""
        stream = make(connection, encoding=encoding)
        take(stream, message(content, flag=flag))
        for _ in range(2):
            assert said in await refusal(stream, error)
        assert 0 == connection.held

    @pytest.mark.timing
    async def test_a_bomb(self, connection):
        """What is larger than may be is not unpacked to find that out."""
        stream = make(connection, encoding=b"gzip")
        take(stream, message(gzip.compress(bytes(2**26)), flag=1, size=MESSAGE_MAX)[: MESSAGE_MAX + 5])
        tracemalloc.start()
        try:
            await refusal(stream, MessageOverLimit)
            assert tracemalloc.get_traced_memory()[1] < 2**18
        finally:
            tracemalloc.stop()


class TestAnswer:
    async def test_in_one(self, connection, stream):
        """An answer of one message is written at once: head, message and good end."""
        stream.finish()
        await stream.answer(b"hello")
        assert [BEGIN, (DATA, 0, message(b"hello")), DONE] == connection.frames()
        assert ([(1, False)], True) == (connection.forgotten, stream.over)
        assert (ROOM - 10, ROOM - 10) == (stream.window, connection.window)

    async def test_at_once_or_not(self, connection, stream):
        """Whether anything is left to do of an answer is told: nothing once it is sent, or nobody waits for it."""
        connection.free = False
        assert not stream.answer_now(b"hello")
        connection.free = True
        assert stream.answer_now(b"hello")
        assert stream.answer_now(b"again")
        assert [BEGIN, (DATA, 0, message(b"hello")), DONE, STOP] == connection.frames()

    async def test_before_the_request_ends(self, connection, stream):
        """A peer that still sends is told to stop."""
        await stream.answer(b"")
        assert [BEGIN, (DATA, 0, message(b"")), DONE, STOP] == connection.frames()
        assert [(1, True)] == connection.forgotten

    async def test_as_a_stream(self, connection, stream):
        """Messages of a stream go one by one behind one head, and the end behind them."""
        stream.finish()
        await stream.send(b"1")
        assert stream.send_now(b"2")
        await stream.answer(b"3")
        sent = [(DATA, 0, message(each)) for each in (b"1", b"2", b"3")]
        assert [BEGIN, *sent, DONE] == connection.frames()

    async def test_of_nothing(self, connection, stream):
        """A stream without any answer has its head and its end."""
        stream.finish()
        stream.end()
        assert [BEGIN, DONE] == connection.frames()

    @pytest.mark.parametrize("of_stream", [True, False], ids=["stream", "connection"])
    async def test_in_pieces(self, connection, stream, of_stream):
        """A message for which there is no room goes in pieces, as the windows open, and no byte too many."""
        stream.finish()
        content = b"x" * (FRAME_BYTES + 100)
        (stream if of_stream else connection).window = 7
        sending = asyncio.ensure_future(stream.answer(content))
        await asyncio.sleep(0)
        assert [BEGIN, (DATA, 0, message(content)[:7])] == connection.frames()
        (stream if of_stream else connection).window = FRAME_BYTES + 3
        connection.free_up()
        await idle()
        assert [FRAME_BYTES, 3] == [len(body) for _, _, body in connection.frames()]
        (stream if of_stream else connection).window = ROOM
        connection.free_up()
        await sending
        assert [(DATA, 0, message(content)[FRAME_BYTES + 10 :]), DONE] == connection.frames()
        left = len(message(content)) - FRAME_BYTES - 10
        assert ROOM - left == (stream if of_stream else connection).window

    async def test_in_the_least_pieces(self, connection, stream):
        """Where there is room for a byte, a byte goes."""
        stream.window = 1
        sending = asyncio.ensure_future(stream.send(b"ab"))
        await asyncio.sleep(0)
        assert [BEGIN, (DATA, 0, b"\0")] == connection.frames()
        sending.cancel()

    async def test_while_the_socket_is_full(self, connection, stream):
        """While the socket takes nothing, nothing is written."""
        connection.free = False
        assert not stream.send_now(b"1")
        sending = asyncio.ensure_future(stream.send(b"2"))
        await asyncio.sleep(0)
        assert [] == connection.frames()
        connection.free = True
        connection.free_up()
        await sending
        assert [BEGIN, (DATA, 0, message(b"2"))] == connection.frames()

    @pytest.mark.parametrize("lacking", ["stream", "connection", "frame"])
    async def test_room_for_all_of_it(self, connection, stream, lacking):
        """What is sent at once has room on the stream, on the connection, and in one frame; a byte more has none."""
        size = FRAME_BYTES - 5 if lacking == "frame" else 20
        if lacking != "frame":
            (stream if lacking == "stream" else connection).window = size + 5
        assert not stream.send_now(bytes(size + 1))
        assert stream.send_now(bytes(size))

    async def test_after_its_end(self, connection, stream):
        """What is over is not answered again in any way."""
        stream.end()
        connection.frames()
        stream.end()
        stream.fail(13, "x")
        stream.refuse(404)
        stream.late()
        await stream.answer(b"x")
        await stream.send(b"x" * 100_000)
        assert (False, [], 1) == (stream.send_now(b"x"), connection.frames(), len(connection.forgotten))


class TestFail:
    async def test_before_the_answer(self, connection, stream):
        """A call that fails before its answer has one block with all of it."""
        stream.finish()
        stream.fail(7, "no", [("sojourn-code", "refused")])
        fields = [*BEGIN[2], ("grpc-status", "7"), ("grpc-message", "no"), ("sojourn-code", "refused")]
        assert [(HEADERS, END_STREAM, fields)] == connection.frames()

    async def test_behind_a_message(self, connection, stream):
        """Behind the first message its status comes alone."""
        stream.finish()
        await stream.send(b"1")
        stream.fail(7, "no")
        assert (HEADERS, END_STREAM, [("grpc-status", "7"), ("grpc-message", "no")]) == connection.frames()[-1]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("100 %", "100 %25"),
            ("a~ \x7f\n", "a~ %7F%0A"),
            ("\u00e9", "%C3%A9"),
            ("a\ud800", "a?"),
            ("x" * (STATUS_TEXT_MAX_BYTES + 1), "x" * STATUS_TEXT_MAX_BYTES),
            ("x" * (STATUS_TEXT_MAX_BYTES - 1) + "\u00e9", "x" * (STATUS_TEXT_MAX_BYTES - 1)),
        ],
        ids=["percent", "control", "beyond-ascii", "half-a-character", "long", "long-and-cut"],
    )
    async def test_text(self, connection, stream, text, said):
        """The text is percent-encoded, and cut at a whole character where it is long."""
        stream.fail(7, text)
        assert ("grpc-message", said) == connection.frames()[0][2][3]

    async def test_late(self, connection, stream):
        """When the caller's time is over, its handler is stopped, and it is told so."""
        stream.task = handler = asyncio.ensure_future(asyncio.Event().wait())
        stream.finish()
        stream.late()
        await asyncio.sleep(0)
        assert handler.cancelled()
        assert [("grpc-status", "4"), ("grpc-message", "the deadline of the call has passed")] == connection.frames()[
            0
        ][2][2:]

    async def test_no_call_of_grpc(self, connection, stream):
        """What is no call of gRPC is answered with a status of HTTP alone."""
        stream.finish()
        stream.refuse(415)
        assert [(HEADERS, END_STREAM, [(":status", "415")])] == connection.frames()

    @pytest.mark.parametrize("how", ["cancel", "end"])
    async def test_lets_go(self, connection, stream, how):
        """A call that is over holds nothing of its request, has no timer, and is stopped if nobody waits for it."""
        stream.task = handler = asyncio.ensure_future(asyncio.Event().wait())
        stream.timer = asyncio.get_running_loop().call_later(1_000, stream.late)
        take(stream, message(b"abc"))
        assert 8 == connection.held
        getattr(stream, how)()
        assert not stream.send_now(b"late")
        await asyncio.sleep(0)
        assert (0, True, how == "cancel") == (connection.held, stream.timer.cancelled(), handler.cancelled())
        assert (how == "cancel") == (not connection.forgotten)
        handler.cancel()
