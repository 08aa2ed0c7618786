"""pool.py: calls that are given up take no place with them, and no answer is another's. Real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpcore2
import pytest
from sojourn.httpclient.pool import Pool

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
PLACES = 4


class Server:
    """Answers each request for /fast, and no other; `behind` follows each answer."""

    def __init__(self) -> None:
        self.behind = b""
        self.connections = 0
        self.under_way = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.under_way += 1
        try:
            while b"/fast" in await reader.readuntil(b"\r\n\r\n"):
                writer.write(ANSWER + self.behind)
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            self.under_way -= 1


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Server, str]]:
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        yield server, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    while server.under_way:
        await asyncio.sleep(0.01)


class Slow(httpcore2.AnyIOBackend):
    """A network in which a connection takes its time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def connect_tcp(self, *args: object, **more: object) -> httpcore2.AsyncNetworkStream:
        await asyncio.sleep(self._seconds)
        return await super().connect_tcp(*args, **more)  # type: ignore[arg-type]


async def answer(pool: Pool, url: str) -> bytes:
    return (await pool.request("GET", url)).content


async def given_up(pool: Pool, url: str, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await answer(pool, url)


class TestGivenUp:
    @pytest.mark.parametrize("connecting", [0.0, 0.02, 0.04])
    async def test_no_place_is_lost(self, connecting: float) -> None:
        """Calls that are given up at any moment, while they wait for a place, for a connection or for an answer, leave
        all places to those that come after them.
        """
        for shift in range(5):
            async with serving() as (_, url), Pool(transport=Slow(connecting), connections=PLACES) as pool:
                calls = [
                    given_up(pool, f"{url}/{'fast' if each % 3 == 0 else 'slow'}", 0.003 * (each % 13) + 0.001 * shift)
                    for each in range(10 * PLACES)
                ]
                await asyncio.gather(*calls, return_exceptions=True)
                async with asyncio.timeout(10):
                    answers = await asyncio.gather(*(answer(pool, f"{url}/fast") for _ in range(2 * PLACES)))
                assert [b"{}"] * 2 * PLACES == answers
                assert 0 == pool.busy


class TestKept:
    async def test_used_again(self) -> None:
        """A connection whose answer was read to its end is used again."""
        async with serving() as (server, url), Pool() as pool:
            for _ in range(3):
                await answer(pool, f"{url}/fast")
            assert (1, 1, 0) == (server.connections, pool.idle, pool.busy)

    @pytest.mark.parametrize("behind", [ANSWER, b"\r\n", b"x"])
    async def test_something_behind_an_answer(self, behind: bytes) -> None:
        """A connection on which more came than the answer is used no more."""
        async with serving() as (server, url), Pool() as pool:
            server.behind = behind
            for _ in range(3):
                assert b"{}" == await answer(pool, f"{url}/fast")
            assert (3, 0) == (server.connections, pool.idle)

    async def test_no_more_than_may_be(self) -> None:
        """Of the connections without a request no more are kept than is said."""
        async with serving() as (_, url), Pool(kept=2) as pool:
            await asyncio.gather(*(answer(pool, f"{url}/fast") for _ in range(6)))
            assert 2 == pool.idle

    async def test_none(self) -> None:
        """Where none is kept each request has a connection of its own."""
        async with serving() as (server, url), Pool(kept=0) as pool:
            for number in range(1, 4):
                await answer(pool, f"{url}/fast")
                assert (number, 0) == (server.connections, pool.idle)


class TestRetired:
    async def test_what_is_under_way_ends(self) -> None:
        """When a pool is retired calls that are under way have their answers, and then nothing is kept."""
        async with serving() as (_, url), Pool() as pool:
            await answer(pool, f"{url}/fast")
            async with pool.stream("GET", f"{url}/fast") as response:
                await answer(pool, f"{url}/fast")
                assert (1, 1) == (pool.idle, pool.busy)
                await pool.retire()
                assert (0, 1) == (pool.idle, pool.busy)
                assert b"{}" == await response.aread()
            assert (0, 0) == (pool.idle, pool.busy)
