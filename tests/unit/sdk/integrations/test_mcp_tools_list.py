"""The answer to tools/list: what is left in it, in each way in which it may come."""

import json
from typing import Any

import pytest
from sojourn.errors import TooLarge
from sojourn.limits import MCP_LISTING_MAX_BYTES
from sojourn.sdk.integrations.mcp_tools_list import Listing, filtered

LISTED = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "read"}, {"name": "drop"}], "nextCursor": "c"}}
LEFT = {**LISTED, "result": {"tools": [{"name": "read"}], "nextCursor": "c"}}


def may_call(tool: str) -> bool:
    return tool == "read"


class Wire:
    """What the server was sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(each.get("body", b"") for each in self.sent)


async def answer(kind: bytes, *parts: bytes) -> Wire:
    wire = Wire()
    listing = Listing(wire.send, may_call)
    headers = [(b"Content-Type", kind), (b"Content-Length", str(sum(map(len, parts))).encode())]
    await listing.send({"type": "http.response.start", "status": 200, "headers": headers})
    for at, part in enumerate(parts):
        await listing.send({"type": "http.response.body", "body": part, "more_body": at + 1 < len(parts)})
    return wire


async def test_json() -> None:
    """A list in one JSON document has the length of what is left of it, however it is cut into parts."""
    text = json.dumps(LISTED).encode()
    for parts in ([text], [text[:10], text[10:], b""]):
        wire = await answer(b"application/json", *parts)
        assert LEFT == json.loads(wire.body)
        assert [str(len(wire.body)).encode()] == [v for n, v in wire.sent[0]["headers"] if n == b"content-length"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
async def test_events(end: bytes) -> None:
    """A list in server-sent events is filtered event by event, with each of their line ends, and the rest goes on."""
    event = b"event: message" + end + b"data: " + json.dumps(LISTED).encode() + end * 2
    text = b": ping" + end * 2 + event
    for cut in range(0, len(text), 7):
        wire = await answer(b"text/event-stream; charset=utf-8", text[:cut], text[cut:], b"")
        data = [each for each in wire.body.splitlines() if each.startswith(b"data: ")]
        assert [LEFT] == [json.loads(each.removeprefix(b"data: ")) for each in data]
        assert wire.body.startswith(b": ping" + end * 2 + b"event: message" + end)
        assert b"drop" not in wire.body


async def test_events_go_on_at_once() -> None:
    """An event goes out when it is whole, and not when the stream ends."""
    wire = Wire()
    listing = Listing(wire.send, may_call)
    await listing.send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    )
    await listing.send({"type": "http.response.body", "body": b"data: {}\n\ndata: {", "more_body": True})
    assert b"data: {}\n\n" == wire.body


@pytest.mark.parametrize(
    "text", [b"", b"not json", b"[]", b'{"error": {}}', b'{"result": {"tools": 1}}', b"[" * 100_000]
)
def test_what_is_no_list(text: bytes) -> None:
    """What is no list of tools goes on as it is."""
    assert text == filtered(text, may_call)


async def test_too_long() -> None:
    """A list beyond its limit breaks off."""
    with pytest.raises(TooLarge):
        await answer(b"application/json", b" " * (MCP_LISTING_MAX_BYTES + 1))
