"""http2/connection.py: each rule of RFC 9113 that a peer can break, and each limit, frame by frame without a socket."""

import asyncio

import pytest
from fakes.http2host import LoneHost, MemoryTransport, OneCaller
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
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    call_headers,
    frame,
    literal,
    message,
    setting,
    window,
)
from harness.looking import WAIT_SECONDS, idle
from sojourn.http2 import connection as connection_module
from sojourn.http2.connection import Connection
from sojourn.http2.frames import (
    CONNECTION_WINDOW_BYTES,
    FRAME_BYTES,
    WINDOW_BYTES,
    WINDOW_MAX_BYTES,
)
from sojourn.http2.limits import (
    HEADER_BLOCK_FRAMES,
    HEADER_BLOCK_MAX_BYTES,
    REQUEST_WINDOW_BYTES,
    RESET_STREAMS_KEPT,
    STREAMS_PER_CONNECTION,
)

PATH = "/a/b"
BLOCK = call_headers(PATH)
PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11
HELLO = PREFACE + frame(SETTINGS)
HEAD = frame(HEADERS, END_HEADERS, 1, BLOCK)
WHOLE = frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK)
PADDED_PRIORITY = 0x20


def four(number):
    return number.to_bytes(4, "big")


class Peer:
    """A connection, and what is sent on it. Its calls wait until they are cancelled, or do what `handle` does."""

    def __init__(self, handle=None):
        self.stopped = []
        self.host = LoneHost({PATH: handle or self.wait})
        self.server = self.host.server
        self.transport = MemoryTransport()
        self.connection = Connection(self.server, OneCaller())

    async def wait(self, stream):
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.append(stream.number)

    async def send(self, *frames):
        """What is answered to these frames."""
        self.connection.data_received(b"".join(frames))
        while self.host.turns.waiting:  # what was sent is read turn by turn
            await asyncio.sleep(0)
        await idle()
        return self.transport.frames()

    async def refused(self, *frames):
        """With what code the connection or a stream ends: ('connection', code) or (stream, code); None: with none."""
        for kind, _, stream, body in await self.send(*frames):
            if kind == GOAWAY:
                assert "close" == self.transport.ended
                return "connection", int.from_bytes(body[4:8], "big")
            if kind == RST_STREAM:
                return stream, int.from_bytes(body, "big")
        return None


@pytest.fixture
async def peer():
    made = Peer()
    made.connection.connection_made(made.transport)
    yield made
    made.connection.connection_lost(None)
    await idle()


@pytest.fixture
async def greeted(peer):
    """A peer that has said hello, and was answered."""
    assert [(SETTINGS, ACK, 0, b"")] == await peer.send(HELLO)
    return peer


class TestBeginning:
    @pytest.mark.parametrize("at", [0, 1, len(PREFACE) - 1])
    @pytest.mark.parametrize("size", [1, 100])
    async def test_preface(self, peer, at, size):
        """What does not begin with the preface of HTTP/2, to its last byte, is none: the connection ends."""
        sent = PREFACE[:at] + b"?" + PREFACE[at + 1 :]
        for start in range(0, len(sent), size):
            ended = await peer.refused(sent[start : start + size])
            if ended:
                break
        assert (("connection", PROTOCOL), at // size) == (ended, start // size)

    @pytest.mark.parametrize("first", [frame(PING, body=b"12345678"), frame(SETTINGS, ACK), HEAD, frame(99)])
    async def test_settings_first(self, peer, first):
        """The first frame has the peer's settings, or the connection ends."""
        assert ("connection", PROTOCOL) == await peer.refused(PREFACE + first)

    async def test_silence(self, peer, monkeypatch):
        """A peer that says nothing in time is sent away; one that has greeted is not."""
        quick, slow = Peer(), Peer()
        quick.connection.connection_made(quick.transport)
        await quick.send(HELLO)
        assert quick.connection._deadline is None
        monkeypatch.setattr(connection_module, "FIRST_BYTES_SECONDS", 0.01)
        slow.connection.connection_made(slow.transport)
        await slow.send(PREFACE[:10])
        async with asyncio.timeout(WAIT_SECONDS):
            while not slow.transport.ended:
                await asyncio.sleep(0.01)
        assert ("", "close") == (quick.transport.ended, slow.transport.ended)
        quick.connection.connection_lost(None)

    @pytest.mark.parametrize("size", [1, 7, 30])
    async def test_in_pieces(self, peer, size):
        """Frames are read whole, in whatever pieces they come."""
        sent = HELLO + frame(PING, body=b"12345678") + WHOLE + frame(PING, body=b"87654321")
        got = []
        for start in range(0, len(sent), size):
            got += await peer.send(sent[start : start + size])
        assert [(SETTINGS, b""), (PING, b"12345678"), (PING, b"87654321")] == [(kind, body) for kind, _, _, body in got]
        assert 1 == peer.server.streams


BROKEN = {
    "frame-too-long": (frame(99, body=bytes(FRAME_BYTES + 1)), SIZE),
    "ping-too-short": (frame(PING, body=b"1234567"), SIZE),
    "ping-too-long": (frame(PING, body=b"123456789"), SIZE),
    "reset-of-no-size": (frame(RST_STREAM, 0, 1, b"123"), SIZE),
    "window-of-no-size": (frame(WINDOW_UPDATE, 0, 0, b"12345"), SIZE),
    "priority-of-no-size": (frame(PRIORITY, 0, 1, b"1234"), SIZE),
    "ping-on-a-stream": (frame(PING, 0, 1, b"12345678"), PROTOCOL),
    "settings-on-a-stream": (frame(SETTINGS, 0, 1), PROTOCOL),
    "data-on-no-stream": (frame(DATA, 0, 0, b"x"), PROTOCOL),
    "data-on-a-stream-to-come": (frame(DATA, 0, 1, b"x"), PROTOCOL),
    "data-on-a-stream-of-ours": (WHOLE + frame(HEADERS, END_HEADERS, 3, BLOCK) + frame(DATA, 0, 2, b"x"), PROTOCOL),
    "head-on-an-even-stream": (frame(HEADERS, END_HEADERS, 2, BLOCK), PROTOCOL),
    "head-that-depends-on-itself": (frame(HEADERS, END_HEADERS | PADDED_PRIORITY, 1, four(1) + b"\0" + BLOCK), PROTOCOL),
    "head-on-a-stream-that-is-over": (WHOLE + frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK), CLOSED),
    "head-on-a-stream-that-was-left-out": (frame(HEADERS, END_HEADERS, 3, BLOCK) + HEAD, CLOSED),
    "continuation-of-nothing": (frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL),
    "continuation-of-another": (frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, END_HEADERS, 3, b""), PROTOCOL),
    "another-within-a-head": (frame(HEADERS, 0, 1, BLOCK) + frame(PING, body=b"12345678"), PROTOCOL),
    "unknown-within-a-head": (frame(HEADERS, 0, 1, BLOCK) + frame(99), PROTOCOL),
    "head-in-too-many-frames": (
        frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 0, 1, b"") * HEADER_BLOCK_FRAMES, CALM,
    ),
    "head-that-is-too-long": (
        frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 0, 1, bytes(FRAME_BYTES)) * (HEADER_BLOCK_MAX_BYTES // FRAME_BYTES),
        CALM,
    ),
    "head-as-long-as-may-be": (  # and unpacked it is more than may be
        frame(HEADERS, 0, 1, bytes(FRAME_BYTES))
        + frame(CONTINUATION, 0, 1, bytes(FRAME_BYTES)) * (HEADER_BLOCK_MAX_BYTES // FRAME_BYTES - 2)
        + frame(CONTINUATION, END_HEADERS, 1, bytes(FRAME_BYTES)),
        COMPRESSION,
    ),
    "block-that-is-none": (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"), COMPRESSION),
    "reset-of-a-stream-to-come": (frame(RST_STREAM, 0, 1, four(8)), PROTOCOL),
    "window-of-a-stream-to-come": (window(1, 1), PROTOCOL),
    "window-of-nothing": (window(0, 0), PROTOCOL),
    "window-that-is-too-large": (window(0, WINDOW_MAX_BYTES - WINDOW_BYTES + 1), FLOW),
    "frames-too-small": (setting(5, FRAME_BYTES - 1), PROTOCOL),
    "frames-too-large": (setting(5, 2**24), PROTOCOL),
    "push-that-is-no-flag": (setting(2, 2), PROTOCOL),
    "first-window-too-large": (setting(4, WINDOW_MAX_BYTES + 1), FLOW),
    "first-window-with-what-there-is": (HEAD + window(1, WINDOW_MAX_BYTES - WINDOW_BYTES) + setting(4, WINDOW_BYTES + 1), FLOW),
    "priority-of-itself": (frame(PRIORITY, 0, 3, four(3) + b"\0"), PROTOCOL),
    "push": (WHOLE + frame(PUSH_PROMISE, END_HEADERS, 1, four(2) + BLOCK), PROTOCOL),
}  # fmt: skip
GOOD = {
    "frame-as-long-as-may-be": frame(99, body=bytes(FRAME_BYTES)),
    "unknown": frame(99, 0xFF, 5, b"x"),
    "priority": frame(PRIORITY, 0, 3, four(1) + b"\0"),
    "head-with-a-priority": frame(HEADERS, END_HEADERS | PADDED_PRIORITY, 1, four(3) + b"\0" + BLOCK),
    "head-in-pieces": frame(HEADERS, 0, 1, BLOCK[:9])
    + frame(CONTINUATION, 0, 1, b"") * (HEADER_BLOCK_FRAMES - 2)
    + frame(CONTINUATION, END_HEADERS, 1, BLOCK[9:]),
    "window-as-large-as-may-be": window(0, WINDOW_MAX_BYTES - WINDOW_BYTES),
    "window-of-a-stream-as-large-as-may-be": HEAD + window(1, WINDOW_MAX_BYTES - WINDOW_BYTES),
    "frames-as-small-as-may-be": setting(5, FRAME_BYTES),
    "frames-as-large-as-may-be": setting(5, 2**24 - 1),
    "push-allowed": setting(2, 1),
    "push-not-allowed": setting(2, 0),
    "first-window-as-large-as-may-be": setting(4, WINDOW_MAX_BYTES),
    "unknown-setting": setting(99, 7),
    "settings-acknowledged": frame(SETTINGS, ACK),
    "reset-of-what-is-over": HEAD + frame(RST_STREAM, 0, 1, four(8)) * 2,
    "window-of-what-is-over": HEAD + frame(RST_STREAM, 0, 1, four(8)) + window(1, 1),
}


class TestRules:
    @pytest.mark.parametrize(("sent", "code"), [pytest.param(*case, id=name) for name, case in BROKEN.items()])
    async def test_broken(self, greeted, sent, code):
        """A peer that breaks a rule of the connection is told which by its code, and the connection ends."""
        assert ("connection", code) == await greeted.refused(sent)
        assert [] == await greeted.send(frame(PING, body=b"12345678"))
        assert (0, {}) == (greeted.server.streams, greeted.connection._streams)

    @pytest.mark.parametrize("sent", [pytest.param(each, id=name) for name, each in GOOD.items()])
    async def test_kept(self, greeted, sent):
        """What a peer may send ends nothing, and what comes behind it is answered."""
        assert await greeted.refused(sent) is None
        assert (PING, ACK, 0, b"12345678") in await greeted.send(frame(PING, body=b"12345678"))

    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            pytest.param(WHOLE + frame(DATA, 0, 1, b"x"), CLOSED, id="data-behind-the-end"),
            pytest.param(frame(HEADERS, END_HEADERS, 1, BLOCK[:-1] + b"\n"), PROTOCOL, id="malformed-head"),
            pytest.param(
                frame(HEADERS, END_HEADERS | END_STREAM, 1, call_headers(PATH, {b"content-length": b"1"})), PROTOCOL,
                id="length-of-nothing",
            ),
            pytest.param(HEAD + HEAD, PROTOCOL, id="trailers-that-do-not-end"),
            pytest.param(HEAD + window(1, WINDOW_MAX_BYTES - WINDOW_BYTES + 1), FLOW, id="window"),
            pytest.param(
                HEAD + frame(DATA, 0, 1, bytes(FRAME_BYTES)) * (REQUEST_WINDOW_BYTES // FRAME_BYTES + 1), FLOW, id="ahead",
            ),
        ],
    )  # fmt: skip
    async def test_of_a_stream(self, greeted, sent, code):
        """A mistake on a stream ends that stream with its code, and the connection goes on."""
        assert (1, code) == await greeted.refused(sent)
        assert (PING, ACK, 0, b"12345678") in await greeted.send(frame(PING, body=b"12345678"))
        assert ("", {}) == (greeted.transport.ended, dict(greeted.server.held))

    async def test_too_much_ahead_on_all(self, greeted):
        """On all streams together a peer may send ahead as much as its window, and it is opened again by half."""
        streams = range(1, 9, 2)
        await greeted.send(*(frame(HEADERS, END_HEADERS, number, BLOCK) for number in streams))
        got, sent = [], 0
        while sent < CONNECTION_WINDOW_BYTES // 2:
            got += await greeted.send(frame(DATA, 0, 1 + 2 * (sent // FRAME_BYTES % 4), bytes(FRAME_BYTES)))
            sent += FRAME_BYTES
        assert [] == [each for each in got if each[2] == 0]
        got = await greeted.send(frame(DATA, 0, 1, b"x"))
        assert [(WINDOW_UPDATE, 0, 0, four(sent + 1))] == [each for each in got if each[2] == 0]
        greeted.connection._credit = 9
        assert await greeted.refused(frame(DATA, 0, 3, bytes(9))) is None
        greeted.connection._credit = 9
        assert ("connection", FLOW) == await greeted.refused(frame(DATA, 0, 3, bytes(10)))

    async def test_what_still_comes_of_a_reset(self, greeted):
        """What still comes of a stream that we have reset is no mistake, as long as that is remembered."""
        bad = frame(HEADERS, END_HEADERS, 1, BLOCK[:-1] + b"\n")
        assert (1, PROTOCOL) == await greeted.refused(bad)
        assert (
            await greeted.refused(frame(DATA, 0, 1, b"x"), frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK)) is None
        )
        greeted.connection._reset.extend(range(1001, 1001 + 2 * RESET_STREAMS_KEPT, 2))
        assert (1, CLOSED) == await greeted.refused(frame(DATA, 0, 1, b"x"))

    async def test_what_still_comes_of_a_call_that_is_ended(self, greeted):
        """A call that we end for a mistake is remembered once; one that the peer has ended has nothing more to come."""
        await greeted.send(HEAD, frame(HEADERS, END_HEADERS, 3, BLOCK))
        assert (1, FLOW) == await greeted.refused(window(1, WINDOW_MAX_BYTES))
        assert ([1], None) == (list(greeted.connection._reset), await greeted.refused(frame(DATA, 0, 1, b"x")))
        await greeted.send(frame(RST_STREAM, 0, 3, four(8)))
        assert (3, CLOSED) == await greeted.refused(frame(DATA, 0, 3, b"x"))

    async def test_answers_to_several_frames(self, greeted):
        """What is answered to frames that come together goes together, and none of it is lost."""
        await greeted.send(HEAD)
        greeted.connection._credit = CONNECTION_WINDOW_BYTES // 2
        got = await greeted.send(frame(PING, body=b"12345678"), frame(DATA, 0, 1, b"x"))
        opened = (WINDOW_UPDATE, 0, 0, four(CONNECTION_WINDOW_BYTES // 2 + 1))
        assert [(PING, ACK, 0, b"12345678"), opened] == got
        got = await greeted.send(frame(PING, body=b"87654321"), frame(SETTINGS))
        assert [(PING, ACK, 0, b"87654321"), (SETTINGS, ACK, 0, b"")] == got

    async def test_whose_turn(self, greeted):
        """Further messages of a call are counted as its caller's."""
        await greeted.connection.pace()
        assert [OneCaller.who] == greeted.host.paces.asked

    async def test_streams(self, greeted):
        """A stream more than there may be is refused; once one is over there is room."""
        heads = [frame(HEADERS, END_HEADERS, 1 + 2 * number, BLOCK) for number in range(STREAMS_PER_CONNECTION + 2)]
        assert await greeted.refused(*heads[:-2]) is None
        last = 1 + 2 * STREAMS_PER_CONNECTION
        assert (last, REFUSED) == await greeted.refused(heads[-2])
        assert STREAMS_PER_CONNECTION == greeted.server.streams
        await greeted.send(frame(RST_STREAM, 0, 1, four(8)))
        assert await greeted.refused(heads[-1]) is None
        assert ([1], STREAMS_PER_CONNECTION) == (greeted.stopped, greeted.server.streams)

    @pytest.mark.parametrize("ended", [0, END_STREAM])
    async def test_a_head_in_pieces(self, greeted, ended):
        """A head in pieces ends its request as one in a single frame does."""
        await greeted.send(frame(HEADERS, ended, 1, BLOCK[:9]), frame(CONTINUATION, END_HEADERS, 1, BLOCK[9:]))
        [stream] = greeted.connection._streams.values()
        assert bool(ended) is stream.ended

    async def test_trailers(self):
        """Trailers that end a request end it, like the flag of its last frame."""
        got = []

        async def read(stream):
            while (each := await stream.message()) is not None:
                got.append(each)
            got.append(None)
            await asyncio.Event().wait()

        peer = Peer(read)
        peer.connection.connection_made(peer.transport)
        trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(b"x", b"1"))
        assert await peer.refused(HELLO, HEAD, frame(DATA, 0, 1, message(b"a")), trailers) is None
        await idle()
        assert [b"a", None] == got
        peer.connection.connection_lost(None)


class TestAnswers:
    async def test_settings_change_the_windows(self, greeted):
        """The first window that a peer names is that of its streams, of those too that are under way."""
        await greeted.send(setting(4, 100), HEAD, window(1, 5))
        [stream] = greeted.connection._streams.values()
        assert (105, WINDOW_BYTES) == (stream.window, greeted.connection.window)
        assert [(SETTINGS, ACK, 0, b"")] == await greeted.send(setting(4, 90))
        assert 95 == stream.window
        await greeted.send(setting(3, 1), frame(HEADERS, END_HEADERS, 3, BLOCK), window(0, 7))
        assert (95, 90) == tuple(each.window for each in greeted.connection._streams.values())
        assert WINDOW_BYTES + 7 == greeted.connection.window

    async def test_acknowledgements_are_not_answered(self, greeted):
        """A PING is answered with its bytes, and what acknowledges ours with nothing."""
        assert [] == await greeted.send(frame(SETTINGS, ACK), frame(PING, ACK, 0, b"12345678"))
        assert [(PING, ACK, 0, b"abcdefgh")] == await greeted.send(frame(PING, body=b"abcdefgh"))

    async def test_goodbye(self, greeted):
        """The end of a connection says of no call that it was not looked at, is said once, and stops them."""
        await greeted.send(HEAD, frame(HEADERS, END_HEADERS, 7, BLOCK))
        greeted.connection.go_away()
        greeted.connection.go_away()
        assert [(GOAWAY, 0, 0, four(2**31 - 1) + four(0))] == greeted.transport.frames()
        await idle()
        assert ([1, 7], 0, "close") == (greeted.stopped, greeted.server.streams, greeted.transport.ended)
        assert [] == await greeted.send(frame(PING, body=b"12345678"))

    async def test_a_deaf_server(self, greeted):
        """A server that hears no more answers nothing new."""
        greeted.server.deaf = True
        assert [] == await greeted.send(WHOLE, frame(PING, body=b"12345678"))
        assert 0 == greeted.server.streams

    def test_no_half_an_end(self, peer):
        """Whoever sends no more hears no more."""
        assert False is peer.connection.eof_received()


class TestBackpressure:
    async def test_nothing_is_read_while_nothing_is_taken(self, greeted):
        """While the peer does not take what it is sent nothing is read of it, and then all that has come."""
        greeted.connection.pause_writing()
        assert (False, False) == (greeted.transport.reading, greeted.connection.free)
        assert [] == await greeted.send(frame(PING, body=b"12345678"))
        greeted.connection.resume_writing()
        await idle()
        assert (True, True) == (greeted.transport.reading, greeted.connection.free)
        assert [(PING, ACK, 0, b"12345678")] == greeted.transport.frames()

    async def test_who_waits_is_woken(self, greeted):
        """What waits for room goes on when the peer takes more, by a window or by the socket; or when it is gone."""
        for wake in (
            greeted.connection.resume_writing,
            lambda: greeted.connection.data_received(window(0, 1)),
            lambda: greeted.connection.connection_lost(None),
        ):
            waiting = asyncio.ensure_future(greeted.connection.freed())
            await idle()
            assert not waiting.done()
            wake()
            async with asyncio.timeout(20):
                await waiting
        assert not greeted.connection._waiters

    async def test_what_is_held(self):
        """The bytes that are held of a request are counted as its caller's, and whether they may be is the host's word."""
        peer = Peer()
        peer.connection.connection_made(peer.transport)
        most = 1 << 20
        assert peer.connection.hold(most)
        assert not peer.connection.hold(1)
        assert {OneCaller.who: most + 1} == dict(peer.host.held)
        assert peer.connection.hold(-most - 1)
        peer.connection.connection_lost(None)
