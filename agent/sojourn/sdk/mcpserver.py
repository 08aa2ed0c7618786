"""Guards MCP servers that are made with the official `mcp` library (`sojourn[mcp]`): no tool without a live task whose
token allows it.

Over HTTP, `McpGuard` stands before the server's ASGI application. Over stdio there are no headers: a token travels in
the `_meta` of each call, and `McpStdioGuard` is a middleware of the server itself.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Unpack
from urllib.parse import urlsplit

from sojourn.errors import InvalidInput, SojournError
from sojourn.sdk.answers import Answer, Refusal
from sojourn.sdk.asgi import App, Content, Receive, Scope, Send, TaskTokenMiddleware, request_of
from sojourn.sdk.guard import Guard, HttpRequest
from sojourn.sdk.guards import GuardOptions, Guards, Verdict
from sojourn.sdk.mcpcalls import CALL, GREETINGS, PROOF_KEY, TOKEN_KEY, McpCall, call_of, read
from sojourn.sdk.routes import ANY_ACTION, Action
from sojourn.sdk.serving import serving
from sojourn.tasks import bound
from sojourn.tasks.tokens import TaskToken

if TYPE_CHECKING:
    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

REFUSED: Final = -32050  # of those codes that JSON-RPC leaves to implementations; MCP uses none near it


class _Tools:
    """Which action a message is: a tool's by its name, another method's by the method's."""

    def __init__(self, tools: Mapping[str, str], methods: Mapping[str, str] | None) -> None:
        self._tools = dict(tools)
        self._methods = dict(methods or {})
        if CALL in self._methods:
            raise InvalidInput(f"{CALL} has no one action: name its tools")

    @property
    def names(self) -> list[str]:
        return [*self._tools.values(), *self._methods.values()]

    def action(self, call: McpCall) -> Action | None:
        """None: it is none, and so refused."""
        named = self._tools.get(call.tool) if call.method == CALL else self._methods.get(call.method)
        if named is not None:
            return Action(named, call.arguments)
        return ANY_ACTION if call.method in GREETINGS or not call.method else None


class McpGuard(TaskTokenMiddleware):
    """Guards the application that `MCPServer.streamable_http_app()` makes, and runs with it.

    `tools` says which action a tool is, by its name; `methods` the same of other methods, as
    `{"resources/read": "doc:read"}`. What a client must say before it calls a tool needs a token that is good here, for
    whatever it is; all else is refused. Arguments of a call that the token's task has parameters for must agree with
    them, and a token for one request is compared with the tool's name and arguments (`bound.of_tool`).

    A tool finds its token by `serving_token()`, and the library its own kind of token by `get_access_token()`; sessions
    are its actor's. The library's own authentication is not needed; with `TaskTokenVerifier` it works behind this.
    """

    def __init__(
        self,
        app: App,
        *,
        tools: Mapping[str, str],
        methods: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._tools = _Tools(tools, methods)
        super().__init__(_HandOn(app), actions=dict.fromkeys(self._tools.names, ""), **options)


class McpStdioGuard:
    """Guards an MCP server over stdio: `MCPServer("…", middleware=[McpStdioGuard(tools=…, audience=…)])`.

    Each call of a tool needs a token in its `_meta` (see `mcpclient.tool_meta`), with a DPoP proof beside it if it is
    bound: by POST, for the audience. Client and server see what goes through the pipe; nobody else does. Tools do not:
    both are taken out. `tools` and `methods` are those of McpGuard, but that greetings need no token.
    """

    def __init__(
        self, *, tools: Mapping[str, str], methods: Mapping[str, str] | None = None, **options: Unpack[GuardOptions]
    ) -> None:
        self._tools = _Tools(tools, methods)
        self._guards = Guards(**options)

    async def __call__(self, ctx: "ServerRequestContext[Any, Any]", call_next: "CallNext") -> "HandlerResult":
        """Raise MCPError for what is refused."""
        try:
            call = call_of(ctx.method, ctx.params)
        except InvalidInput as error:
            raise _error(Refusal(400, "invalid_request", error.public)) from None
        action = self._tools.action(call)
        if action is ANY_ACTION:
            return await call_next(ctx)
        params = dict(ctx.params or {})
        meta = dict(params.get("_meta") or {})
        headers = [
            (name, value)
            for name, key in (("authorization", TOKEN_KEY), ("dpop", PROOF_KEY))
            if isinstance(value := meta.pop(key, None), str)
        ]

        async def judge(guard: Guard) -> Verdict:
            path = urlsplit(guard.verifier.audience).path
            return await guard.check_request(HttpRequest("POST", path, "", headers), lambda: action, digest)

        async def digest() -> str:
            return call.digest

        verdict = await self._guards.judge(judge)
        if not isinstance(verdict, TaskToken):
            raise _error(verdict)
        with serving(verdict):
            return await call_next(replace(ctx, params={**params, "_meta": meta}))


def _error(answer: Answer) -> Exception:
    from mcp.shared.exceptions import MCPError

    description = getattr(answer, "description", "")
    told = {name: value for name, value in answer.headers() if name == "dpop-nonce"}
    data = {"error": getattr(answer, "error", "") or "no_token", "status": answer.status, **told}
    return MCPError(REFUSED, description, data)
