"""The answer to `tools/list`, as JSON or server-sent events, with the tools alone that a token may call."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from sojourn.errors import TooLarge
from sojourn.limits import MCP_LISTING_MAX_BYTES

LIST: Final = "tools/list"
_EVENTS: Final = b"text/event-stream"
_LENGTH: Final = b"content-length"

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Listing:
    """Stands between an application and its server for one answer, of which it holds a part at a time.

    A list that is larger than MCP_LISTING_MAX_BYTES breaks off by TooLarge. What is no list of tools goes on unchanged.
    """

    def __init__(self, send: Send, may_call: Callable[[str], bool]) -> None:
        """`may_call` says of a tool's name whether it stays in the list."""
        self._send = send
        self._may_call = may_call
        self._start: Message | None = None  # of an answer whose length is not known yet
        self._events = False
        self._held = bytearray()

    async def send(self, message: Message) -> None:
        """See ASGI. An answer in events goes on event by event, any other when it is whole."""
        if message["type"] == "http.response.start":
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            self._events = any(name == b"content-type" and value.startswith(_EVENTS) for name, value in headers)
            self._start = {**message, "headers": [each for each in headers if each[0] != _LENGTH]}
            if self._events:
                await self._begin()
        elif message["type"] == "http.response.body":
            await self._take(message.get("body", b""), more=message.get("more_body", False))
        else:
            await self._send(message)

    async def _begin(self, length: int | None = None) -> None:
        if self._start is not None:
            more = [] if length is None else [(_LENGTH, str(length).encode())]
            start, self._start = {**self._start, "headers": [*self._start["headers"], *more]}, None
            await self._send(start)

    async def _take(self, part: bytes, *, more: bool) -> None:
        self._held += part
        if len(self._held) > MCP_LISTING_MAX_BYTES:
            raise TooLarge(f"a list of tools is at most {MCP_LISTING_MAX_BYTES} bytes")
        if self._events:
            ready = self._whole_events() if more else bytes(self._held)
            del self._held[: len(ready)]
            if ready or not more:
                await self._send(
                    {"type": "http.response.body", "body": self._filtered_events(ready), "more_body": more}
                )
        elif not more:
            body = filtered(bytes(self._held), self._may_call)
            await self._begin(len(body))
            await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def _whole_events(self) -> bytes:
        """Up to the last empty line, which ends an event, whichever of the line ends is used."""
        ends = [at + len(end) for end in (b"\n\n", b"\r\n\r\n", b"\r\r") if (at := self._held.rfind(end)) >= 0]
        return bytes(self._held[: max(ends, default=0)])

    def _filtered_events(self, text: bytes) -> bytes:
        lines = text.splitlines(keepends=True)
        return b"".join(self._filtered_line(line) for line in lines)

    def _filtered_line(self, line: bytes) -> bytes:
        name, colon, value = line.partition(b":")
        if name != b"data" or not colon:
            return line
        content = value.rstrip(b"\r\n")
        return b"data: " + filtered(content.strip(), self._may_call) + value[len(content) :]


def filtered(content: bytes, may_call: Callable[[str], bool]) -> bytes:
    """A JSON-RPC message with the tools alone that may be called. One that lists none comes back as it is."""
    try:
        message = json.loads(content)
    except (ValueError, RecursionError):
        return content
    result = message.get("result") if isinstance(message, dict) else None
    tools = result.get("tools") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(tools, list):
        return content
    kept = [each for each in tools if isinstance(each, dict) and may_call(str(each.get("name")))]
    return json.dumps({**message, "result": {**result, "tools": kept}}).encode()
