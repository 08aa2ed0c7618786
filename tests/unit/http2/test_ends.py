"""http2/: how calls and connections end, from either side."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fakes.http2site import PATH, answer, site
from harness.http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    Connection,
    call_headers,
    frame,
    message,
)
from sojourn.http2.stream import Stream


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
        """An agent that ends answers what it was asked, hears nothing more, and says that this is the end."""
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
        assert (2**31 - 1).to_bytes(4, "big") + b"\0" * 4 == got[GOAWAY, 0]

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
