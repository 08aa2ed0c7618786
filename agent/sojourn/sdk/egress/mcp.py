"""MCP through an egress proxy: a token that is for one request alone is for the call that the MCP server will read."""

from collections.abc import Callable, Iterable

from sojourn.errors import InvalidInput
from sojourn.sdk.integrations.mcp_messages import read
from sojourn.sdk.request.authorization import WantedRequest
from sojourn.tasktoken import request_digest

_JSON, _EVENTS = "application/json", "text/event-stream"
_MARK = b'"jsonrpc"'


def digest_of(wanted: WantedRequest, headers: Iterable[tuple[bytes, bytes]]) -> Callable[[bytes], str] | None:
    """How to tell what a token for this one request is over, by its content; None: what any HTTP request's is.

    An MCP client takes JSON and event streams alike, and posts JSON-RPC (MCP, Streamable HTTP). Whatever is mistaken
    for that, or for none, has a token that its service refuses: never one for another request.
    """
    fields = {name.lower(): value.decode("latin-1").lower() for name, value in headers}
    accepted = {each.partition(";")[0].strip() for each in fields.get(b"accept", "").split(",")}
    posted = fields.get(b"content-type", "").partition(";")[0].strip()
    if wanted.method != "POST" or posted != _JSON or not {_JSON, _EVENTS} <= accepted:
        return None

    def digest(content: bytes) -> str:
        try:
            found = read(content).digest if _MARK in content else ""
        except InvalidInput:  # it is no MCP message, or a server would refuse it
            found = ""
        return found or request_digest.of_http(wanted.method, wanted.target, content)

    return digest
