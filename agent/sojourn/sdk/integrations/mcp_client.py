"""MCP clients of the official `mcp` library (`sojourn[mcp]`) with a task's authority: each call has a token and a proof
that the client itself never sees.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from sojourn.errors import InvalidInput
from sojourn.errors.oauth import OutsideTask
from sojourn.sdk.client.extras import extra
from sojourn.sdk.integrations.mcp_messages import AUTHORIZATION_KEY, CALL, PROOF_KEY, McpCall, read
from sojourn.sdk.request.authorization import (
    AUTHORIZATION,
    CHALLENGE,
    DPOP,
    DPOP_NONCE,
    HttpAnswer,
    Send,
    attach,
    want,
    want_at,
)
from sojourn.sdk.task.clients import AsyncUse

with extra("mcp"):
    import httpx2
    from mcp import Client
    from mcp.shared.exceptions import MCPError
    from mcp_types import CallToolResult

Tools = Mapping[str, str]


class McpAuth(httpx2.Auth):
    """For the client's HTTP: `streamable_http_client(url, http_client=httpx2.AsyncClient(auth=McpAuth(task)))`.

    Each request goes out with a token of the task's grant that the URL belongs to, as TaskAuth has it for httpx, bound
    to the task's key in the agent unless `bound` is false. With `tools`, `{"read_ticket": "ticket:read"}`, the call of
    a tool has a token for that action alone, and another tool raises OutsideTask, unsent; without, a token has all that
    the task may do there.
    """

    def __init__(self, task: AsyncUse, *, tools: Tools | None = None, bound: bool = True) -> None:
        self._asking = task.asking
        self._tools = tools
        self._bound = bound

    def sync_auth_flow(self, request: httpx2.Request) -> NoReturn:
        """MCP clients have an event loop."""
        del request
        raise InvalidInput("McpAuth is for httpx2.AsyncClient, as MCP clients use it")

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """For `httpx2.AsyncClient`."""
        url = request.url
        if url.userinfo or request.headers.get("Host", "").encode() != url.netloc:
            raise OutsideTask("a request for a task has no user in its URL and no other Host", resource=url.host)
        call = read(await request.aread()) if request.method == "POST" else None
        text = f"{url.scheme}://{url.netloc.decode('ascii')}{url.raw_path.decode('ascii')}"
        wanted = want(self._asking.task, request.method, text, _actions(call, self._tools), bound=self._bound)
        if call is not None:
            wanted = replace(wanted, calls=f"{call.method} {call.tool}")
        flow = attach(wanted, self._asking.shelf, (lambda _: call.digest) if call is not None else None)
        send = await self._asking.advance(flow, None, request.aread)
        while send is not None:
            for name in (AUTHORIZATION, DPOP):
                request.headers.pop(name, None)
            request.headers.update(send.headers)
            response = yield request
            send = await self._asking.advance(flow, _answer(response), request.aread)


async def call_tool(
    client: Client,
    task: AsyncUse,
    name: str,
    arguments: dict[str, Any] | None = None,
    *,
    resource: str,
    action: str = "",
    bound: bool = True,
    **options: Any,
) -> CallToolResult:
    """Call a tool of a server over stdio that McpStdioGuard guards, as `resource`. The token is in the call's `_meta`.

    `action` is the tool's; none: the token has all that the task may do there. Raise MCPError if the server refuses.
    """
    asking, call = task.asking, McpCall(CALL, name, dict(arguments or {}))
    wanted = want_at(asking.task, resource, "POST", resource, (action,) if action else (), bound=bound)
    flow = attach(replace(wanted, calls=f"{CALL} {name}"), asking.shelf, lambda _: call.digest)

    async def nothing() -> bytes:
        return b""

    async def send_as(send: Send) -> CallToolResult:
        meta = {**(options.get("meta") or {}), AUTHORIZATION_KEY: send.headers[AUTHORIZATION]}
        if DPOP in send.headers:
            meta[PROOF_KEY] = send.headers[DPOP]
        return await client.call_tool(name, arguments, **{**options, "meta": meta})

    send = await asking.advance(flow, None, nothing)
    while send is not None:
        try:
            return await send_as(send)
        except MCPError as error:
            told = error.data if isinstance(error.data, dict) else {}
            challenge = f'{DPOP} error="{told.get("error", "")}"'
            answer = HttpAnswer(int(told.get("status", 0)), (challenge,), told.get("dpop-nonce"))
            send = await asking.advance(flow, answer, nothing)
            if send is None:
                raise
    raise InvalidInput("there was nothing to send")


def _actions(call: McpCall | None, tools: Tools | None) -> tuple[str, ...]:
    if call is None or call.method != CALL or tools is None:
        return ()
    if call.tool not in tools:
        raise OutsideTask(f"the tool {call.tool[:64]!r} is none of those that this client may call")
    return (tools[call.tool],)


def _answer(response: httpx2.Response) -> HttpAnswer:
    headers = response.headers
    return HttpAnswer.of(response.status_code, headers.get_list(CHALLENGE), headers.get_list(DPOP_NONCE))
