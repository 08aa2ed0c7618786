"""http2/stream.py: what is held for peers that do not take what they asked for."""

import asyncio
import gc
import tracemalloc
from types import SimpleNamespace
from typing import Any

import pytest
from sojourn.http2.frames import FRAME_BYTES
from sojourn.http2.stream import Stream

pytestmark = pytest.mark.full

CONTENT = bytes(1024 * 1024)
STREAMS = 50


class Closed:
    """A connection whose peer takes nothing until `window` says so."""

    def __init__(self) -> None:
        self.free, self.window = True, 0
        self.written = b""
        self._open = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written += data

    async def freed(self) -> None:
        await self._open.wait()
        await asyncio.sleep(0)

    def open(self, window: int) -> None:
        self.window = window
        self._open.set()


async def test_one_message_of_many_streams_is_held_once() -> None:
    """A message that many streams wait to send is held once, and not once for each of them."""
    connection: Any = Closed()
    head: Any = SimpleNamespace(length=None)
    streams = [Stream(connection, number, head, 2**31 - 1) for number in range(1, 2 * STREAMS, 2)]
    gc.collect()
    tracemalloc.start()
    try:
        sending = [asyncio.create_task(each.send(CONTENT)) for each in streams]
        await asyncio.sleep(0)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        for each in sending:
            each.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
    assert held < len(CONTENT)


async def test_pieces_are_the_message() -> None:
    """Whatever the pieces are in which a peer takes a message, it gets its length and content, in that order."""
    for window in (1, 4, 5, 6, 7, 100):
        connection: Any = Closed()
        head: Any = SimpleNamespace(length=None)
        stream = Stream(connection, 1, head, window)
        content = bytes(range(256)) * 100
        sending = asyncio.create_task(stream.send(content))
        await asyncio.sleep(0)
        connection.open(2**31 - 1)
        await asyncio.sleep(0)
        while not sending.done():  # the stream's own window, opened again and again
            stream.window += window if len(connection.written) < 300 else FRAME_BYTES
            await asyncio.sleep(0)
        assert b"\x00" + len(content).to_bytes(4, "big") + content == payloads(connection.written)


def payloads(written: bytes) -> bytes:
    """What DATA frames carry."""
    found, at = b"", 0
    while at < len(written):
        length, kind = int.from_bytes(written[at : at + 3], "big"), written[at + 3]
        found += written[at + 9 : at + 9 + length] if kind == 0 else b""
        at += 9 + length
    return found
