"""mcp.py: what a token for one request alone is over, when a command's request goes through the egress proxy."""

import json

import pytest
from sojourn.sdk.egress.mcp import digest_of
from sojourn.sdk.request.authorization import WantedRequest
from sojourn.tasktoken import request_digest
from sojourn.tasktoken.grants import Grant

URL = "https://tools.example.org/mcp"
GRANT = Grant.parse(URL, ["ticket:read"])
HEADERS = [(b"Accept", b"application/json, text/event-stream"), (b"Content-Type", b"application/json; charset=utf-8")]
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read", "arguments": {"ticket": "42"}}}


def wanted(method: str = "POST") -> WantedRequest:
    return WantedRequest(GRANT, method, URL)


def digest(content: bytes, headers: list[tuple[bytes, bytes]] = HEADERS) -> str:
    made = digest_of(wanted(), headers)
    assert made is not None
    return made(content)


def test_of_a_tool() -> None:
    """The call of a tool is told by its name and arguments, however its JSON is written."""
    expected = request_digest.of_tool("read", {"ticket": "42"})
    assert expected == digest(json.dumps(CALL).encode())
    assert expected == digest(json.dumps(CALL, indent=2, sort_keys=True).encode())


def test_of_another_method() -> None:
    """Any other message is told by its method and parameters."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert request_digest.of_json({"arguments": {}, "method": "tools/list"}) == digest(json.dumps(message).encode())


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff", b'{"method": "tools/call", "params": {"name": "read"}}', b'{"jsonrpc": "2.0", "jsonrpc": "2.0"}'],
)  # fmt: skip
def test_of_what_is_no_message(content: bytes) -> None:
    """What is no MCP message, or may be read in two ways, is told as an HTTP request."""
    assert request_digest.of_http("POST", "/mcp", content) == digest(content)


@pytest.mark.parametrize(
    ("method", "headers"),
    [("GET", HEADERS), ("POST", HEADERS[:1]), ("POST", HEADERS[1:]), ("POST", [(b"accept", b"application/json"), HEADERS[1]]),
     ("POST", [HEADERS[0], (b"content-type", b"text/plain")]), ("POST", [])],
)  # fmt: skip
def test_other_requests(method: str, headers: list[tuple[bytes, bytes]]) -> None:
    """What no MCP client posts is an HTTP request like any other."""
    assert digest_of(wanted(method), headers) is None
