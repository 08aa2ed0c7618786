"""doors/http2: calls of gRPC over HTTP/2, frame by frame, on a real socket."""

import asyncio
import gc
import gzip
import os
import random
import tracemalloc
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.doorways import OneVisitor, served
from harness.http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    call_headers,
    frame,
    literal,
    message,
)
from hpack import Decoder, Encoder
from sojourn.doors.http2.frames import FRAME_BYTES
from sojourn.doors.http2.heads import BadBlock, Heads
from sojourn.doors.http2.server import Server
from sojourn.doors.http2.stream import Stream
from sojourn.errors import SojournError
from sojourn.limits import (
    FRAMES_PER_TURN,
    METADATA_MAX_BYTES,
    REQUEST_WINDOW_BYTES,
    REQUESTS_HELD_BYTES,
    STATUS_TEXT_MAX_BYTES,
    STREAMS_PER_CONNECTION,
)

PATH = "/a/b"
MESSAGE_MAX = 100_000
REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/b"), (b"content-type", b"application/grpc")]
Handle = Callable[[Stream], Awaitable[None]]


class Visitor:
    who = 7
    details: dict[str, str] = {}  # noqa: RUF012


async def echo(stream: Stream) -> None:
    """Answers with the first message; refuses what is malformed."""
    try:
        content = await stream.message()
    except SojournError as error:
        stream.fail(3, error.public, [("sojourn-code", error.code)])
    else:
        await stream.answer(b"none" if content is None else content)


class Site:
    """A server with one handler, and raw connections to it."""

    def __init__(self, door: OneVisitor, path: Path) -> None:
        self.door = door
        self.server: Server = door.server  # type: ignore[assignment]  # it has one
        self._path = path

    async def within(self, work: Callable[[Connection], Any], settings: bytes = b"") -> Any:
        """What `work` returns of an open connection, in a thread."""

        def run() -> Any:
            with Connection(str(self._path)) as connection:
                connection.open(settings)
                return work(connection)

        return await asyncio.to_thread(run)


@asynccontextmanager
async def site(folder: Path, handle: Handle = echo) -> AsyncIterator[Site]:
    server = Server({PATH: handle}, message_max=MESSAGE_MAX)  # type: ignore[dict-item]  # a coroutine function
    async with served(server, Visitor(), folder / "s.sock") as door:
        yield Site(door, folder / "s.sock")


def answer(connection: Connection, stream: int = 1) -> tuple[bytes, dict[str, str]]:
    """The messages' bytes of an answer, and all headers and trailers that came with it."""
    data, fields, decoder = b"", dict[str, str](), Decoder()
    for kind, flags, number, body in connection.frames():
        if kind == HEADERS:
            for name, value in decoder.decode(body):
                fields[str(name)] = str(value)
        if kind == RST_STREAM and number == stream:
            fields["reset"] = str(int.from_bytes(body, "big"))
            return data, fields
        if kind == DATA and number == stream:
            data += body
        if kind in {HEADERS, DATA} and number == stream and flags & END_STREAM:
            return data, fields
    return data, fields | {"closed": ""}


class TestHeads:
    def block(self, encoder: Encoder, *more: tuple[bytes, bytes]) -> bytes:
        return encoder.encode([*REQUEST, *more])

    def test_the_same_block_again(self) -> None:
        """A block of references alone is read once, and says the same while the table stays as it is."""
        heads, encoder = Heads(), Encoder()
        first = heads.read(self.block(encoder))
        again = self.block(encoder)
        assert first == heads.read(again)
        assert heads.read(again) is heads.read(again)

    @pytest.mark.parametrize("seed", range(20))
    def test_as_the_library_says(self, seed: int) -> None:
        """Whatever a caller repeats and changes, each block is read as hpack itself reads it."""
        dice = random.Random(seed)
        heads, encoder, decoder = Heads(), Encoder(), Decoder()
        for _ in range(200):
            size = dice.choice([None, None, None, 0, 64, 4096])
            if size is not None:
                encoder.header_table_size = size
            more = [(b"x-" + bytes([dice.choice(b"abc")]), dice.choice([b"1", b"2"])) for _ in range(dice.randrange(3))]
            block = self.block(encoder, *more)
            found, fields = heads.read(block), decoder.decode(block, raw=True)
            assert [field for field in fields if not field[0].startswith(b":")] == list(found.fields)
            assert ("/a/b", b"POST") == (found.path, found.method)

    def test_a_table_that_has_changed(self) -> None:
        """The very same bytes say something else when the table has changed in between."""
        heads = Heads()
        heads.read(literal(b"x", b"1", first=0x40))
        bare = b"\x83\x86\x84"  # POST, http, /
        assert ((b"x", b"1"),) == heads.read(bare + b"\xbe").fields
        heads.read(literal(b"x", b"2", first=0x40))
        assert ((b"x", b"2"),) == heads.read(bare + b"\xbe").fields

    @pytest.mark.parametrize(
        "fields",
        [
            REQUEST[1:],
            [REQUEST[0], *REQUEST],
            [*REQUEST, (b":path", b"/c")],
            [*REQUEST, (b"x", b"1"), (b":authority", b"a")],
            [*REQUEST, (b":status", b"200")],
            [*REQUEST, (b"X-Upper", b"1")],
            [*REQUEST, (b"connection", b"close")],
            [*REQUEST, (b"te", b"gzip")],
            [*REQUEST, (b"x", b"a\r\nb")],
            [*REQUEST, (b"content-length", b"-1")],
            [*REQUEST, (b"", b"1")],
        ],
    )
    def test_malformed(self, fields: list[tuple[bytes, bytes]]) -> None:
        """What RFC 9113 (8.2, 8.3) forbids in a request is told as such."""
        assert Heads().read(Encoder().encode(fields)).malformed

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (b"1S", 1),
            (b"250m", 0.25),
            (b"99999999n", 0.099999999),
            (b"2H", 7200),
            (b"", None),
            (b"1", None),
            (b"-1S", None),
            (b"123456789S", None),
        ],
    )
    def test_deadlines(self, value: bytes, seconds: float | None) -> None:
        """A deadline is a number of at most eight digits and its unit; anything else is none."""
        found = Heads().read(Encoder().encode([*REQUEST, (b"grpc-timeout", value)])).timeout
        assert found == (None if seconds is None else pytest.approx(seconds))

    def test_what_is_no_block(self) -> None:
        """A block that cannot be decoded ends the connection, since what follows stands on it."""
        with pytest.raises(BadBlock):
            Heads().read(b"\xff\xff\xff\xff\xff\xff")

    def test_a_table_that_is_resized_again_and_again(self) -> None:
        """A block may change the size of the table twice (RFC 7541, 4.2), and not ten thousand times."""
        block = Encoder().encode(REQUEST)
        assert Heads().read(b"\x20" + b"\x3f\xe1\x1f" + block).path == "/a/b"
        for size in (b"\x20", b"\x3f\xe1\x1f", b"\x3e"):
            with pytest.raises(BadBlock):
                Heads().read(size * 3 + block)


class TestCalls:
    async def test_one(self, tmp_path: Path) -> None:
        """A call is answered with its head, its message and its status."""
        async with site(tmp_path) as here:
            data, fields = await here.within(lambda c: (c.call(PATH, b"hello"), answer(c))[1])
        assert message(b"hello") == data
        assert ("200", "application/grpc", "0") == (fields[":status"], fields["content-type"], fields["grpc-status"])

    @pytest.mark.parametrize("size", [0, 1, 9_000, 16_379, 16_380, 70_000, MESSAGE_MAX])
    async def test_sizes(self, tmp_path: Path, size: int) -> None:
        """Messages come whole and go whole, in as many frames as they take, through windows that open bit by bit."""
        content = os.urandom(size)

        def work(connection: Connection) -> tuple[bytes, int]:
            connection.send(frame(HEADERS, END_HEADERS, 1, call_headers(PATH)))
            whole = message(content)
            for start in range(0, len(whole), 10_000):
                connection.send(frame(DATA, 0, 1, whole[start : start + 10_000]))
            connection.send(frame(DATA, END_STREAM, 1))
            got, most = b"", 0
            for kind, flags, stream, body in connection.frames():
                if kind == DATA:
                    got, most = got + body, max(most, len(body))
                    if body:
                        more = len(body).to_bytes(4, "big")
                        connection.send(frame(WINDOW_UPDATE, 0, 0, more), frame(WINDOW_UPDATE, 0, 1, more))
                if flags & END_STREAM and stream == 1:
                    break
            return got, most

        async with site(tmp_path) as here:
            got, most = await here.within(work, b"\x00\x04" + (5_000).to_bytes(4, "big"))
            assert not here.server.held
        assert message(content) == got
        assert most <= 5_000

    async def test_at_once(self, tmp_path: Path) -> None:
        """What is sent at once is what there is room for then, on the stream and on the connection, and nothing later."""
        told: list[bool] = []

        async def try_all(stream: Stream) -> None:
            await stream.message()
            told.extend(
                stream.send_now(bytes(size)) for size in (96, 95, 1)
            )  # five bytes more with what is before each
            stream.window += 1_000
            told.append(stream.send_now(bytes(FRAME_BYTES)))
            stream.end()
            told.append(stream.send_now(b"x"))

        async with site(tmp_path, try_all) as here:
            data, fields = await here.within(
                lambda c: (c.call(PATH, b""), answer(c))[1], b"\x00\x04" + (100).to_bytes(4, "big")
            )
            assert [False, True, False, False, False] == told
            assert (message(bytes(95)), "0") == (data, fields["grpc-status"])
            await here.within(lambda c: (c.call(PATH, b""), answer(c))[1])
            assert [True, True, True, False, False] == told[5:]

    async def test_at_once_on_a_full_connection(self, tmp_path: Path) -> None:
        """A stream with room on a connection that has none sends nothing at once, and what it waits to send later."""
        told: list[bool] = []

        async def fill(stream: Stream) -> None:
            await stream.message()
            told.extend(stream.send_now(bytes(FRAME_BYTES - 5)) for _ in range(5))
            await stream.answer(b"behind")

        def work(connection: Connection) -> bytes:
            connection.call(PATH, b"")
            got = b""
            for kind, flags, stream, body in connection.frames():
                got += body if kind == DATA else b""
                if kind == DATA and len(got) == 3 * FRAME_BYTES:
                    connection.send(frame(WINDOW_UPDATE, 0, 0, (100).to_bytes(4, "big")))
                if flags & END_STREAM and stream == 1 and kind in {DATA, HEADERS}:
                    break
            return got

        async with site(tmp_path, fill) as here:
            got = await here.within(work, b"\x00\x04" + (1 << 20).to_bytes(4, "big"))
        assert [True, True, True, False, False] == told
        assert message(b"behind") == got[3 * FRAME_BYTES :]

    async def test_messages_in_any_pieces(self, tmp_path: Path) -> None:
        """A stream of messages is read as sent, however its frames cut it."""
        sent = [os.urandom(size) for size in (0, 3, 70, 0, 500)]

        async def count(stream: Stream) -> None:
            while (content := await stream.message()) is not None:
                await stream.send(content)
            stream.end()

        async with site(tmp_path, count) as here:
            for size in (1, 4, 5, 6, 100):

                def work(connection: Connection, size: int = size) -> bytes:
                    connection.send(frame(HEADERS, END_HEADERS, 1, call_headers(PATH)))
                    whole = b"".join(map(message, sent))
                    for start in range(0, len(whole), size):
                        connection.send(frame(DATA, 0, 1, whole[start : start + size]))
                    connection.send(frame(DATA, END_STREAM, 1))
                    return answer(connection)[0]

                assert b"".join(map(message, sent)) == await here.within(work)

    async def test_a_peer_without_a_table(self, tmp_path: Path) -> None:
        """A client that allows no table is told in the first block that there is none, as it must be (RFC 7541, 4.2)."""

        def work(connection: Connection) -> list[tuple[str, str]]:
            connection.call(PATH, b"a")
            connection.call("/a/c", b"a", 3)
            decoder, fields = Decoder(), []
            decoder.max_allowed_table_size = 0
            for kind, flags, stream, body in connection.frames():
                fields += [(str(n), str(v)) for n, v in decoder.decode(body)] if kind == HEADERS else []
                if stream == 3 and flags & END_STREAM:
                    break
            return fields

        async with site(tmp_path) as here:
            fields = await here.within(work, b"\x00\x01" + bytes(4))
        assert ["0", "12"] == [value for name, value in fields if name == "grpc-status"]

    async def test_statuses(self, tmp_path: Path) -> None:
        """An error's text comes as it is, percent-encoded on the wire, and cut where it is long."""
        text = "Grüße: 100 %\n" + "é" * STATUS_TEXT_MAX_BYTES

        async def refuse(stream: Stream) -> None:
            stream.fail(7, text, [("sojourn-code", "refused")])

        async with site(tmp_path, refuse) as here:
            _, fields = await here.within(lambda c: (c.call(PATH, b""), answer(c))[1])
        assert ("7", "refused") == (fields["grpc-status"], fields["sojourn-code"])
        assert fields["grpc-message"].startswith("Gr%C3%BC%C3%9Fe: 100 %25%0A%C3%A9")
        assert fields["grpc-message"].isascii()

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({b":method": b"GET"}, "405"),
            ({b"content-type": b"text/html"}, "415"),
            ({b"content-type": b"application/grpc-web+proto"}, "415"),
            ({b"content-type": b"application/grpc+proto"}, "200"),
        ],
    )
    async def test_what_is_no_call(self, tmp_path: Path, fields: dict[bytes, bytes], status: str) -> None:
        """Requests that are none of gRPC are answered by HTTP's own statuses."""
        async with site(tmp_path) as here:
            assert status == (await here.within(lambda c: (c.call(PATH, b"", 1, fields), answer(c))[1]))[1][":status"]

    async def test_texts_that_are_no_unicode(self, tmp_path: Path) -> None:
        """Half of a surrogate pair, which JSON may hold, keeps no error from being told."""

        async def refuse(stream: Stream) -> None:
            stream.fail(7, "a\ud800b")

        async with site(tmp_path, refuse) as here:
            assert "a?b" == (await here.within(lambda c: (c.call(PATH, b""), answer(c))[1]))[1]["grpc-message"]

    async def test_unknown_methods(self, tmp_path: Path) -> None:
        """A method that is not there is UNIMPLEMENTED."""
        async with site(tmp_path) as here:
            assert "12" == (await here.within(lambda c: (c.call("/a/c", b""), answer(c))[1]))[1]["grpc-status"]

    async def test_packed_requests(self, tmp_path: Path) -> None:
        """gzip and deflate are unpacked up to the limit; what is not whole, or packed otherwise, is refused."""
        packed = {b"grpc-encoding": b"gzip"}

        def asking(content: bytes, extra: dict[bytes, bytes]) -> Callable[[Connection], Any]:
            def work(connection: Connection) -> Any:
                connection.send(
                    frame(HEADERS, END_HEADERS, 1, call_headers(PATH, extra)),
                    frame(DATA, END_STREAM, 1, message(content, flag=1)),
                )
                return answer(connection)

            return work

        async with site(tmp_path) as here:
            for content, extra in (
                (gzip.compress(b"a" * 60_000), packed),
                (zlib.compress(b"a" * 60_000), {b"grpc-encoding": b"deflate"}),
            ):
                assert message(b"a" * 60_000) == (await here.within(asking(content, extra)))[0]
            for content, extra, code in (
                (gzip.compress(b"a" * (MESSAGE_MAX + 1)), packed, "limit_exceeded"),
                (b"no gzip", packed, "invalid_input"),
                (gzip.compress(b"abc")[:-3], packed, "invalid_input"),
                (gzip.compress(b"a"), {}, "unimplemented"),
                (gzip.compress(b"a"), {b"grpc-encoding": b"br"}, "unimplemented"),
            ):
                assert code == (await here.within(asking(content, extra)))[1]["sojourn-code"]
            assert not here.server.held

    async def test_too_much_metadata(self, tmp_path: Path) -> None:
        """A call with too much metadata is refused, and the next on the connection is answered."""

        def work(connection: Connection) -> Any:
            connection.send(
                frame(HEADERS, 0, 1, call_headers(PATH)),
                frame(9, END_HEADERS, 1, literal(b"x", b"a" * (METADATA_MAX_BYTES - 200), first=0x40)),
            )
            first = answer(connection)
            connection.call(PATH, b"next", 3)
            return first[1]["grpc-status"], answer(connection, 3)[0]

        async with site(tmp_path) as here:
            assert ("8", message(b"next")) == await here.within(work)


class TestEnds:
    async def test_deadline(self, tmp_path: Path) -> None:
        """When the caller's time is over, the handler is stopped and the status says so."""
        stopped = asyncio.Event()

        async def wait(_stream: Stream) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        async with site(tmp_path, wait) as here:
            _, fields = await here.within(lambda c: (c.call(PATH, b"", 1, {b"grpc-timeout": b"20m"}), answer(c))[1])
            assert "4" == fields["grpc-status"]
            async with asyncio.timeout(20):
                await stopped.wait()
            assert 0 == here.server.streams

    @pytest.mark.parametrize("how", ["reset", "close"])
    async def test_a_caller_that_leaves(self, tmp_path: Path, how: str) -> None:
        """A call that is reset, or whose connection ends, stops its handler, and nothing of it is held."""
        begun, stopped = asyncio.Event(), asyncio.Event()

        async def wait(stream: Stream) -> None:
            begun.set()
            try:
                while True:
                    await stream.message()
                    await stream.send(b"x" * 10)
                    await asyncio.sleep(0.001)
            finally:
                stopped.set()

        loop = asyncio.get_running_loop()

        def work(connection: Connection) -> None:
            connection.send(
                frame(HEADERS, END_HEADERS, 1, call_headers(PATH)), frame(DATA, 0, 1, message(b"a" * 999)[:-1])
            )
            asyncio.run_coroutine_threadsafe(begun.wait(), loop).result(20)
            if how == "reset":
                connection.send(frame(RST_STREAM, 0, 1, (8).to_bytes(4, "big")), frame(PING, body=b"12345678"))
                connection.until(PING)

        async with site(tmp_path, wait) as here:
            await here.within(work)
            async with asyncio.timeout(20):
                await stopped.wait()
            assert (0, {}) == (here.server.streams, dict(here.server.held))

    async def test_an_answer_before_the_end_of_the_request(self, tmp_path: Path) -> None:
        """A caller that is answered while it still sends is told to stop, and what still comes is no mistake."""

        def work(connection: Connection) -> Any:
            connection.send(frame(HEADERS, END_HEADERS, 1, call_headers(PATH)), frame(DATA, 0, 1, message(b"a")))
            data, fields = answer(connection)
            connection.until(RST_STREAM)
            connection.send(frame(DATA, 0, 1, b"more"), frame(DATA, END_STREAM, 1), frame(PING, body=b"12345678"))
            kinds = []
            for kind, flags, _, _ in connection.frames():
                kinds.append(kind)
                if kind == PING and flags & ACK:
                    break
            return data, fields["grpc-status"], kinds

        async with site(tmp_path) as here:
            assert (message(b"a"), "0", [PING]) == await here.within(work)

    async def test_draining(self, tmp_path: Path) -> None:
        """An agent that ends answers what it was asked, hears nothing more, and says which calls it has looked at."""
        heard = asyncio.Event()

        async def slow(stream: Stream) -> None:
            heard.set()
            await asyncio.sleep(0.2)
            await stream.answer(b"late")

        async with site(tmp_path, slow) as here:

            def work(connection: Connection) -> Any:
                connection.call(PATH, b"")
                got = {}
                for kind, _, stream, body in connection.frames():
                    got[kind, stream] = body
                return got

            asking = asyncio.create_task(here.within(work))
            await heard.wait()
            await here.door.drain()
            got = await asking
        assert message(b"late") == got[DATA, 1]
        assert (1).to_bytes(4, "big") + b"\0" * 4 == got[GOAWAY, 0]

    async def test_a_length_that_is_not_true(self, tmp_path: Path) -> None:
        """A request that is not as long as its head says is malformed (RFC 9113, 8.1.1)."""
        async with site(tmp_path) as here:
            for length in (b"5", b"7", b"999"):
                extra = {b"content-length": length}
                found = await here.within(lambda c, extra=extra: (c.call(PATH, b"a", 1, extra), answer(c))[1])
                assert ("1" if length != b"6" else None) == found[1].get("reset")
            assert (
                message(b"a")
                == (await here.within(lambda c: (c.call(PATH, b"a", 1, {b"content-length": b"6"}), answer(c))[1]))[0]
            )


class TestLimits:
    async def test_turns(self, tmp_path: Path) -> None:
        """A connection that sends thousands of frames at once lets others have their turn in between."""
        order: list[str] = []

        async def note(stream: Stream) -> None:
            order.append(stream.head.values(b"x")[0].decode())
            await stream.answer(b"")

        def flood(connection: Connection) -> None:
            many = 40 * FRAMES_PER_TURN
            calls = b"".join(
                frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * n, call_headers(PATH, {b"x": b"flood"}))
                for n in range(many)
            )
            connection.socket.settimeout(None)
            connection.send(calls, frame(PING, body=b"12345678"))
            connection.until(PING)

        async with site(tmp_path, note) as here:
            flooding = asyncio.create_task(here.within(flood))
            while not order:
                await asyncio.sleep(0)
            await here.within(lambda c: (c.call(PATH, b"", 1, {b"x": b"other"}), answer(c))[1])
            await flooding
        assert "flood" in order[order.index("other") :]

    @pytest.mark.parametrize(
        ("connections", "fields", "most"), [(20, 0, FRAMES_PER_TURN), (1, 400, FRAMES_PER_TURN // 2)]
    )
    async def test_turns_of_one_user(self, tmp_path: Path, connections: int, fields: int, most: int) -> None:
        """However many connections a user has, and however long their frames take, others have turns in between."""
        rounds, begun = 0, Counter[int]()

        async def note(stream: Stream) -> None:
            begun[rounds] += 1
            await stream.answer(b"")

        block = call_headers(PATH) + b"\x00\x01x\x00" * fields
        calls = b"".join(frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * n, block) for n in range(FRAMES_PER_TURN - 2))
        async with site(tmp_path, note) as here, AsyncExitStack() as stack:
            for _ in range(connections):  # all are there before the loop sees the first
                connection = stack.enter_context(Connection(str(tmp_path / "s.sock")))
                connection.open()
                connection.send(calls)
            async with asyncio.timeout(20):
                while begun.total() < connections * (FRAMES_PER_TURN - 2):
                    await asyncio.sleep(0)
                    rounds += 1
            assert not here.server.streams
        assert max(begun.values()) <= most

    async def test_streams(self, tmp_path: Path) -> None:
        """More streams than a connection may have at once are refused, which a client may try again."""

        async def wait(stream: Stream) -> None:
            await asyncio.sleep(0.3)
            await stream.answer(b"")

        def work(connection: Connection) -> set[int]:
            for n in range(STREAMS_PER_CONNECTION + 5):
                connection.call(PATH, b"", 1 + 2 * n)
            refused, ended = set(), 0
            for kind, flags, stream, body in connection.frames():
                if kind == RST_STREAM and body == (7).to_bytes(4, "big"):
                    refused.add(stream)
                ended += kind == HEADERS and bool(flags & END_STREAM)
                if ended == STREAMS_PER_CONNECTION:
                    return refused
            return refused

        async with site(tmp_path, wait) as here:
            assert {1 + 2 * (STREAMS_PER_CONNECTION + n) for n in range(5)} == await here.within(work)

    async def test_requests_that_are_not_read(self, tmp_path: Path) -> None:
        """A caller may send ahead as much as a window, and no more."""

        async def deaf(stream: Stream) -> None:
            await asyncio.Event().wait()

        def work(connection: Connection) -> bytes:
            connection.send(frame(HEADERS, END_HEADERS, 1, call_headers(PATH)))
            piece = message(b"a" * 9_000)
            for _ in range(REQUEST_WINDOW_BYTES // len(piece) + 1):
                connection.send(frame(DATA, 0, 1, piece))
            return connection.until(RST_STREAM, 1)

        async with site(tmp_path, deaf) as here:
            assert (3).to_bytes(4, "big") == await here.within(work)
            assert not here.server.held

    @pytest.mark.parametrize(
        "piece", [message(b"ab"), message(gzip.compress(b"a" * MESSAGE_MAX), flag=1)], ids=["small", "packed"]
    )
    async def test_messages_that_are_not_read(self, tmp_path: Path, piece: bytes) -> None:
        """Messages that are sent ahead take the room that they took on the wire, however many they are or become."""

        async def deaf(stream: Stream) -> None:
            await stream.message()
            await asyncio.Event().wait()

        def work(connection: Connection) -> tuple[int, int]:
            pieces = piece * (16_000 // len(piece))
            tracemalloc.start()
            try:
                for number in (1, 3, 5, 7):
                    connection.send(
                        frame(HEADERS, END_HEADERS, number, call_headers(PATH, {b"grpc-encoding": b"gzip"}))
                    )
                    for _ in range(REQUEST_WINDOW_BYTES // 16_000):
                        connection.send(frame(DATA, 0, number, pieces))
                connection.send(frame(PING, body=b"12345678"))
                connection.until(PING)
                return here.server.held[7], tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()

        async with site(tmp_path, deaf) as here:
            held, taken = await here.within(work)
        assert held > 4 * (REQUEST_WINDOW_BYTES - 17_000)
        assert taken < 2 * held

    async def test_turns_within_a_call(self, tmp_path: Path) -> None:
        """A call of very many messages that are there already lets others have their turn in between."""
        order: list[str] = []

        async def count(stream: Stream) -> None:
            while await stream.message() is not None:
                order.append("message")
            stream.end()

        def work(connection: Connection) -> None:
            connection.send(
                frame(HEADERS, END_HEADERS, 1, call_headers(PATH)), frame(DATA, END_STREAM, 1, message(b"") * 3_000)
            )
            answer(connection)

        async with site(tmp_path, count) as here:
            counting = asyncio.create_task(here.within(work))
            while not order:
                await asyncio.sleep(0)
            order.append("other")
            await counting
        assert order.index("other") < 100

    async def test_what_one_user_may_have_held(self, tmp_path: Path) -> None:
        """Where too much is held of one user's requests, the next is refused, and others are not counted with it."""
        async with site(tmp_path) as here:
            here.server.held[7] = REQUESTS_HELD_BYTES - len(message(b"a" * 10))
            here.server.held[8] = REQUESTS_HELD_BYTES
            assert message(b"a" * 10) == (await here.within(lambda c: (c.call(PATH, b"a" * 10), answer(c))[1]))[0]
            _, fields = await here.within(lambda c: (c.call(PATH, b"a" * 11), answer(c))[1])
            assert REQUESTS_HELD_BYTES - len(message(b"a" * 10)) == here.server.held[7]
        assert ("limit_exceeded", None) == (fields.get("sojourn-code"), fields.get("closed"))

    async def test_a_peer_that_reads_nothing(self, tmp_path: Path) -> None:
        """Nothing more is read of a peer that does not take its answers, and it is served when it does."""

        def work(connection: Connection) -> int:
            connection.socket.settimeout(1.0)
            sent = 0
            ping = frame(PING, body=b"12345678") * 1_000
            try:
                while sent < 100 << 20:
                    sent += connection.socket.send(ping)
            except TimeoutError:
                pass
            got = 0
            connection.socket.settimeout(20)
            while got < sent - 17_000:
                got += len(connection.socket.recv(1 << 20))
            return sent

        async with site(tmp_path) as here:
            assert await here.within(work) < 10 << 20

    async def test_answers_that_nobody_takes_any_more(self, tmp_path: Path) -> None:
        """Calls whose answers wait for a window, and that are reset, leave nothing behind."""
        waiting = asyncio.Semaphore(0)
        loop = asyncio.get_running_loop()

        async def full(stream: Stream) -> None:
            waiting.release()
            await stream.answer(b"a")

        def work(connection: Connection) -> int:
            for number in range(1, 401, 2):
                connection.call(PATH, b"", number)
                asyncio.run_coroutine_threadsafe(waiting.acquire(), loop).result(20)
                connection.send(frame(RST_STREAM, 0, number, (8).to_bytes(4, "big")))
            connection.send(frame(PING, body=b"12345678"))
            connection.until(PING)
            gc.collect()
            return sum(type(each) is asyncio.Future for each in gc.get_objects())

        async with site(tmp_path, full) as here:
            assert await here.within(work, b"\x00\x04" + bytes(4)) < 50

    async def test_calls_whose_answers_are_not_taken(self, tmp_path: Path) -> None:
        """While a peer does not take its answers, not even what has come already is answered."""
        answered = 0

        async def refuse(stream: Stream) -> None:
            nonlocal answered
            answered += 1
            stream.fail(7, "x" * STATUS_TEXT_MAX_BYTES)

        async with site(tmp_path, refuse):
            with Connection(str(tmp_path / "s.sock")) as connection:
                connection.open()
                encoder = Encoder()
                blocks = [encoder.encode(REQUEST) for _ in range(2_000)]
                connection.send(
                    *(frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * n, each) for n, each in enumerate(blocks))
                )
                await asyncio.sleep(0.5)
                before = answered
                await asyncio.to_thread(lambda: [answer(connection, 1 + 2 * n) for n in range(2_000)])
        assert before < 500
        assert 2_000 == answered

    async def test_silence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A connection that says no more than the preface is closed."""
        monkeypatch.setattr("sojourn.doors.http2.connection.FIRST_BYTES_SECONDS", 0.05)

        def work() -> bool:
            with Connection(str(tmp_path / "s.sock")) as connection:
                connection.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                return connection.ended()

        async with site(tmp_path):
            assert await asyncio.to_thread(work)

    async def test_settings_first(self, tmp_path: Path) -> None:
        """What comes before the settings is no HTTP/2."""

        def work() -> bool:
            with Connection(str(tmp_path / "s.sock")) as connection:
                connection.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, ACK))
                return connection.ended()

        async with site(tmp_path):
            assert await asyncio.to_thread(work)
