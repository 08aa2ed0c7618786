"""One connection of a command to its egress proxy: HTTP/1.1 as h11 reads and writes it, with limits and deadlines."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from sojourn.errors import InvalidInput
from sojourn.limits import PROXY_CHUNK_BYTES, PROXY_CONTENT_SECONDS, PROXY_HEAD_MAX_BYTES, PROXY_HEAD_SECONDS
from sojourn.sdk.client.extras import extra

with extra("http"):
    import anyio
    import anyio.abc
    import h11

BROKEN: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)  # TLS errors are OSErrors
Headers = Sequence[tuple[bytes, bytes]]
# Headers of one connection alone (RFC 9110, 7.6.1), and what the two proxies of RFC 9110, 11.7 say to each other.
_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
    | {b"proxy-authorization", b"proxy-authenticate", b"proxy-authentication-info"}
)
_REASON_MAX: Final = 200  # characters
_LINGER_SECONDS: Final = 1.0  # for a command that still sends while it is told no


class Gone(Exception):
    """The command has closed its connection, or has been silent for too long."""


class Malformed(Exception):
    """What the command sent is no good request; `status` says how it is told."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Wire:
    """Reads requests and writes answers, one after the other."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=PROXY_HEAD_MAX_BYTES)
        self._method = b""  # of the request in work

    async def request(self, idle_seconds: float) -> h11.Request | None:
        """The next request, whose content is then to be read; None if there is none any more. Raise Malformed."""
        try:
            async with asyncio.timeout(idle_seconds):
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    await self._receive()
                    event = self._h11.next_event()
            async with asyncio.timeout(PROXY_HEAD_SECONDS):
                while event is h11.NEED_DATA:
                    await self._receive()
                    event = self._h11.next_event()
        except TimeoutError:
            return None
        except h11.RemoteProtocolError as error:
            raise Malformed(error.error_status_hint, "this is no good request of HTTP") from error
        if not isinstance(event, h11.Request):
            return None
        self._method = event.method
        names = [name for name, _ in event.headers]
        if b"transfer-encoding" in names and b"content-length" in names:
            raise Malformed(400, "a request has a Content-Length or a Transfer-Encoding, and not both")
        return event

    async def content(self) -> AsyncIterator[bytes]:
        """What is left of the request's content, in parts. Raise Gone or Malformed."""
        if self._h11.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        while True:
            try:
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    async with asyncio.timeout(PROXY_CONTENT_SECONDS):
                        await self._receive()
                    continue
            except TimeoutError as error:
                raise Gone from error
            except h11.RemoteProtocolError as error:
                raise Malformed(400, "the content of this request is not as its head says") from error
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise Gone

    async def begin(self, status: int, headers: Headers, reason: bytes = b"") -> None:
        """Send the head of an answer. Raise InvalidInput for one that HTTP/1.1 does not know."""
        try:
            await self._send(h11.Response(status_code=status, headers=list(headers), reason=reason))
        except h11.LocalProtocolError as error:
            raise InvalidInput("the service's answer is no good HTTP/1.1") from error

    async def part(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> bool:
        """End the answer; say whether another request may come."""
        await self._send(h11.EndOfMessage())
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    async def give(self, document: Mapping[str, Any]) -> bool:
        """Answer 200 with JSON that is not to be kept; say whether another request may come."""
        body = json.dumps(document).encode()
        await self.begin(200, [*_json_headers(body)])
        if self._method != b"HEAD":
            await self.part(body)
        return await self.end()

    async def say(self, status: int, document: Mapping[str, Any], headers: Headers = ()) -> None:
        """Answer with JSON, and let the connection go when the command has read it."""
        if self._h11.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        body = json.dumps(document).encode()
        own = [*_json_headers(body), (b"Connection", b"close")]
        said = str(document.get("error_description", ""))[:_REASON_MAX]
        reason = "".join(
            each if " " <= each <= "~" else "?" for each in said
        ).encode()  # what clients show of a CONNECT
        await self._send(h11.Response(status_code=status, headers=[*own, *headers], reason=reason))
        if self._method != b"HEAD":
            await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())
        await self._linger()

    async def connected(self) -> None:
        """Answer a CONNECT: the tunnel is open. Raise Malformed if it has content, or if bytes came ahead of this: who
        sends before there is a tunnel sends in clear what is meant for its other end.
        """
        async for _ in self.content():
            raise Malformed(400, "a CONNECT has no content")
        if self._h11.trailing_data[0]:
            raise Malformed(400, "the tunnel is not open yet")
        await self._send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))

    async def until_gone(self) -> None:
        """Return when the command lets go of the connection while it waits for its answer; never, if it sends more."""
        try:
            data = await self.stream.receive(PROXY_CHUNK_BYTES)
        except (anyio.EndOfStream, *BROKEN):
            return
        self._h11.receive_data(data)
        await asyncio.Event().wait()

    async def _receive(self) -> None:
        try:
            data = await self.stream.receive(PROXY_CHUNK_BYTES)
        except anyio.EndOfStream:
            data = b""
        except BROKEN as error:
            raise Gone from error
        self._h11.receive_data(data)

    async def _send(self, event: Any) -> None:
        data = self._h11.send(event)
        if not data:
            return
        try:
            async with asyncio.timeout(PROXY_CONTENT_SECONDS):
                await self.stream.send(data)
        except (TimeoutError, anyio.EndOfStream, *BROKEN) as error:
            raise Gone from error

    async def _linger(self) -> None:
        """Take what is still sent, for a moment: a connection that is closed on it would lose the answer."""
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                if isinstance(self.stream, anyio.abc.SocketStream):
                    await self.stream.send_eof()
                while True:
                    await self.stream.receive(PROXY_CHUNK_BYTES)
        except (TimeoutError, anyio.EndOfStream, *BROKEN):
            return


def _json_headers(body: bytes) -> Headers:
    return (
        (b"Content-Type", b"application/json"),
        (b"Content-Length", str(len(body)).encode()),
        (b"Cache-Control", b"no-store"),
    )


def forwarded(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Those headers that are not of one connection alone."""
    named = {
        each.strip().lower() for name, value in headers if name.lower() == b"connection" for each in value.split(b",")
    }
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP | named]
