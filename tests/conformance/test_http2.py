"""The door's HTTP/2 by h2spec, the conformance suite of RFC 9113's forerunner and HPACK, in its strict mode."""

import asyncio
import queue
import subprocess
import threading
from collections.abc import Iterator

import pytest
import uvloop
from fakes.doorways import OneVisitor, shares
from harness.spirecli import binary
from sojourn.endpoints.listener.protocol_switch import Caller
from sojourn.http2.errors import BadMessage
from sojourn.http2.server import Server
from sojourn.http2.stream import Stream

pytestmark = pytest.mark.forked


class _Anything(Server):
    """Answers whatever is asked, a moment after the request is whole: what h2spec sends is not of gRPC."""

    def handler(self, _head: object) -> object:  # type: ignore[override]  # a coroutine function
        return self._answer

    async def _answer(self, stream: Stream) -> None:
        try:
            while await stream.message() is not None:
                pass
        except BadMessage:
            while not stream.ended:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        await stream.send(b"answer")
        stream.end()


class _Visitor:
    who = 1
    details: dict[str, str] = {}  # noqa: RUF012


@pytest.fixture
def port() -> Iterator[int]:
    """Of a listener on loopback, whose loop runs in a thread."""
    ports, stop = queue.Queue[int](), asyncio.Event()

    async def listen() -> None:
        loops.append(asyncio.get_running_loop())
        door = OneVisitor(_Anything({}, message_max=1 << 20, **shares()), _Visitor())
        listening = await asyncio.get_running_loop().create_server(lambda: Caller(door), "127.0.0.1", 0)
        ports.put(listening.sockets[0].getsockname()[1])
        await stop.wait()
        listening.close()
        await door.drain()

    loops: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=lambda: uvloop.run(listen()))
    thread.start()
    yield ports.get(timeout=20)
    loops[0].call_soon_threadsafe(stop.set)
    thread.join()


def test_h2spec(port: int) -> None:
    """All 146 cases of h2spec pass."""
    command = [binary("h2spec"), "-h", "127.0.0.1", "-p", str(port), "--strict", "--timeout", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert 0 == done.returncode, done.stdout[done.stdout.find("Failures:") :]
    assert "146 tests, 146 passed, 0 skipped, 0 failed" in done.stdout
