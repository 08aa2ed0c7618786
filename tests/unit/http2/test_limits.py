"""http2/: what a caller may have, and that others have their turn."""

import asyncio
import gc
import gzip
import tracemalloc
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fakes.http2site import MESSAGE_MAX, PATH, REQUEST, answer, site
from harness.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    Connection,
    call_headers,
    frame,
    message,
)
from hpack import Encoder
from sojourn.http2.frames import Code
from sojourn.http2.headers import Heads
from sojourn.http2.limits import FIELD_HELD_BYTES, REQUEST_WINDOW_BYTES, STATUS_TEXT_MAX_BYTES, STREAMS_PER_CONNECTION
from sojourn.http2.stream import Stream
from sojourn.limits import CALLS_PER_TURN, MESSAGES_PER_ROUND, REQUESTS_HELD_BYTES

CALLS = 62  # on one connection at once
HEAD_HELD = Heads().read(call_headers(PATH)).held


class TestLimits:
    async def test_turns(self, tmp_path: Path) -> None:
        """A connection that sends thousands of frames at once lets others have their turn in between."""
        order: list[str] = []

        async def note(stream: Stream) -> None:
            order.append(stream.head.values(b"x")[0].decode())
            await stream.answer(b"")

        def flood(connection: Connection) -> None:
            many = 320 * CALLS_PER_TURN
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

    @pytest.mark.parametrize(("connections", "fields"), [(20, 0), (1, 400)])
    async def test_turns_of_one_user(self, tmp_path: Path, connections: int, fields: int) -> None:
        """However many connections a user has, and however long their frames take, others have turns in between."""
        rounds, begun = 0, Counter[int]()

        async def note(stream: Stream) -> None:
            begun[rounds] += 1
            await stream.answer(b"")

        block = call_headers(PATH) + b"\x00\x01x\x00" * fields
        calls = b"".join(frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * n, block) for n in range(CALLS))
        async with site(tmp_path, note) as here, AsyncExitStack() as stack:
            for _ in range(connections):  # all are there before the loop sees the first
                connection = stack.enter_context(Connection(str(tmp_path / "s.sock")))
                connection.open()
                connection.send(calls)
            async with asyncio.timeout(20):
                while begun.total() < connections * CALLS:
                    await asyncio.sleep(0)
                    rounds += 1
            assert not here.server.streams
        assert max(begun.values()) <= CALLS_PER_TURN

    async def test_messages_that_have_come_already(self, tmp_path: Path) -> None:
        """However many calls of a user have messages in store, so many are worked off in a round, and then others'."""
        rounds, read = 0, Counter[int]()

        async def take(stream: Stream) -> None:
            first = True
            while await stream.message() is not None:
                read[rounds] += not first
                first = False
            await stream.answer(b"")

        calls = b"".join(
            frame(HEADERS, END_HEADERS, number, call_headers(PATH)) + frame(DATA, END_STREAM, number, message(b"") * 30)
            for number in range(1, 201, 2)
        )
        async with site(tmp_path, take) as here:
            working = asyncio.create_task(here.within(lambda c: (c.send(calls), answer(c, 199))))
            async with asyncio.timeout(20):
                while read.total() < 29 * 100:
                    await asyncio.sleep(0)
                    rounds += 1
            await working
            assert not here.server.paces._lines
        assert MESSAGES_PER_ROUND == max(read.values())

    async def test_calls_that_end_while_their_messages_wait(self, tmp_path: Path) -> None:
        """Calls that end before it is their turn take nobody's."""

        async def take(stream: Stream) -> None:
            while await stream.message() is not None:
                pass
            await stream.answer(b"")

        def work(connection: Connection) -> bytes:
            many = frame(DATA, 0, 3, message(b"") * 3_000)
            connection.send(
                frame(HEADERS, END_HEADERS, 3, call_headers(PATH)) + many,
                frame(RST_STREAM, 0, 3, (8).to_bytes(4, "big")),
                frame(HEADERS, END_HEADERS, 5, call_headers(PATH)),
                frame(DATA, END_STREAM, 5, message(b"") * 3),
            )
            return answer(connection, 5)[0]

        async with site(tmp_path, take) as here:
            assert message(b"") == await here.within(work)
            assert not here.server.paces._lines

    async def test_streams(self, tmp_path: Path) -> None:
        """More streams than a connection may have at once are refused, which a client may try again."""

        over, loop = asyncio.Event(), asyncio.get_running_loop()

        async def wait(stream: Stream) -> None:
            await over.wait()
            await stream.answer(b"")

        def work(connection: Connection) -> set[int]:
            for n in range(STREAMS_PER_CONNECTION + 5):
                connection.call(PATH, b"", 1 + 2 * n)
            refused, ended = set(), 0
            for kind, flags, stream, body in connection.frames():
                if kind == RST_STREAM and body == (7).to_bytes(4, "big"):
                    refused.add(stream)
                if len(refused) == 5:
                    loop.call_soon_threadsafe(over.set)
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

    @pytest.mark.timing
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
            before = REQUESTS_HELD_BYTES - HEAD_HELD - len(message(b"a" * 10))
            here.server.held[7] = before
            here.server.held[8] = REQUESTS_HELD_BYTES
            assert message(b"a" * 10) == (await here.within(lambda c: (c.call(PATH, b"a" * 10), answer(c))[1]))[0]
            _, fields = await here.within(lambda c: (c.call(PATH, b"a" * 11), answer(c))[1])
            assert before == here.server.held[7]
        assert ("8", None) == (fields.get("grpc-status"), fields.get("closed"))

    async def test_what_heads_hold(self, tmp_path: Path) -> None:
        """The heads of calls under way count as held, each field with what it takes; their ends free them."""
        began, ends = asyncio.Event(), asyncio.Event()

        async def wait(stream: Stream) -> None:
            began.set()
            await ends.wait()
            await stream.answer(b"")

        many = {b"x%d" % n: b"" for n in range(400)}
        async with site(tmp_path, wait) as here:
            asked = asyncio.create_task(here.within(lambda c: (c.call(PATH, b"", 1, many), answer(c))[1]))
            await began.wait()
            held = here.server.held[7]
            here.server.held[7] = REQUESTS_HELD_BYTES
            _, fields = await here.within(lambda c: (c.call(PATH, b""), answer(c))[1])
            here.server.held[7] = held
            ends.set()
            await asked
            assert 0 == here.server.held[7]
        assert (True, str(Code.ENHANCE_YOUR_CALM)) == (held > 400 * FIELD_HELD_BYTES, fields["reset"])

    @pytest.mark.parametrize("room", [True, False], ids=["late", "too much"])
    async def test_a_block_without_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, room: bool) -> None:
        """A header block counts as held while it comes, and must come whole soon; pieces of a frame count too."""
        monkeypatch.setattr("sojourn.http2.connection.HEADER_BLOCK_SECONDS", 0.05 if room else 60)

        def work(connection: Connection) -> dict[str, str]:
            block = call_headers(PATH, {b"x": b"a" * 1_000})
            connection.send(frame(HEADERS, 0, 1, block[:500]), frame(CONTINUATION, 0, 1, block[500:]))
            return answer(connection)[1]

        async with site(tmp_path) as here:
            here.server.held[7] = before = 0 if room else REQUESTS_HELD_BYTES - 1_000
            assert "closed" in await here.within(work)
            assert before == here.server.held[7]

    async def test_pieces_of_a_frame(self, tmp_path: Path) -> None:
        """A frame that has not come whole counts as held, until it has or the connection ends."""
        async with site(tmp_path) as here:

            def work(connection: Connection) -> tuple[int, int]:
                ping = frame(PING, body=b"12345678")
                connection.send(ping, ping[:-1])
                connection.until(PING)
                held = here.server.held[7]
                connection.send(ping[-1:])
                connection.until(PING)
                return held, here.server.held[7]

            assert (16, 0) == await here.within(work)

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
            return futures()

        def futures() -> int:
            gc.collect()
            return sum(type(each) is asyncio.Future and each.get_loop() is loop for each in gc.get_objects())

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
        monkeypatch.setattr("sojourn.http2.connection.FIRST_BYTES_SECONDS", 0.05)

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
