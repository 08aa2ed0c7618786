"""A server on a socket of the test's own, and callers that speak HTTP/2 by hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fakes.doorways import OneVisitor, served, shares
from harness.http2 import (
    DATA,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    Connection,
)
from hpack import Decoder
from sojourn.http2.errors import BadMessage
from sojourn.http2.server import Server
from sojourn.http2.stream import Stream

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
    except BadMessage as error:
        stream.fail(error.status, str(error))
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
    server = Server({PATH: handle}, message_max=MESSAGE_MAX, **shares())  # type: ignore[dict-item]  # a coroutine function
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
