"""Guards MCP servers that are made with the official `mcp` library (`sojourn[mcp]`): no tool without a live task whose
token allows it.

Over HTTP, `McpGuard` stands before the server's ASGI application. Over stdio there are no headers: a token travels in
the `_meta` of each call, and `McpStdioGuard` is a middleware of the server itself.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from sojourn.errors import InvalidInput, TooLarge
from sojourn.errors.oauth import ActionNotAllowed
from sojourn.sdk.client.extras import extra
from sojourn.sdk.guard.attempts import Attempt
from sojourn.sdk.guard.challenges import GuardAnswer, Refusal
from sojourn.sdk.guard.guard import Guard, HttpRequest
from sojourn.sdk.guard.lazy import LoopGuard, Verdict, warn_of_absent_agent
from sojourn.sdk.guard.param_check import Arguments, stating
from sojourn.sdk.guard.param_places import ARGUMENT, placed
from sojourn.sdk.guard.person_check import Taking, takes
from sojourn.sdk.guard.routes import ANY_ACTION, Action, Route
from sojourn.sdk.guard.serving_token import serving, serving_token
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.sdk.integrations.asgi import SCOPE_KEY, App, Content, Scope, TaskTokenMiddleware
from sojourn.sdk.integrations.asgi_streams import Receive, Send
from sojourn.sdk.integrations.mcp_messages import (
    AUTHORIZATION_KEY,
    CALL,
    GREETINGS,
    PROOF_KEY,
    McpCall,
    call_of,
    meta_of,
    read,
)
from sojourn.sdk.integrations.mcp_tools_list import LIST, Listing
from sojourn.tasktoken.tokens import TaskToken

if TYPE_CHECKING:
    from mcp.server.auth.provider import AccessToken
    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

_LISTING: Final = "sojourn.listing"  # in the scope of a request for the list of tools
_TAKEN_UP: Final = "last-event-id"
_NOT_TAKEN_UP: Final = Refusal(
    403, "insufficient_scope", "a stream of answers is not taken up again where calls are guarded: call once more"
)
REFUSED: Final = -32050  # of those codes that JSON-RPC leaves to implementations; MCP uses none near it


ActionsByName = Mapping[str, str] | Mapping[str, Action] | Mapping[str, str | Action]


def _named(actions: ActionsByName) -> dict[str, Action]:
    """Raise InvalidInput for a place that is no argument's."""
    found = {name: Action(each) if isinstance(each, str) else each for name, each in actions.items()}
    return {name: replace(each, params=placed(each.params, {ARGUMENT})) for name, each in found.items()}


class _Tools:
    """Which action a message is: a tool's by its name, another method's by the method's."""

    def __init__(
        self, tools: ActionsByName, methods: ActionsByName | None, path: str = "", person: Taking = "refused"
    ) -> None:
        self._person = person
        self._tools = _named(tools)
        self._methods = _named(methods or {})
        self._path = path
        if CALL in self._methods:
            raise InvalidInput(f"{CALL} has no one action: name its tools")

    @property
    def names(self) -> list[str]:
        return [each.name for each in (*self._tools.values(), *self._methods.values())]

    @property
    def routes(self) -> list[Route]:
        """What is known before any call."""
        tools = [Route(f"tool {name}", action, frozenset(), ARGUMENT) for name, action in self._tools.items()]
        return tools + [Route(name, action, frozenset(), ARGUMENT) for name, action in self._methods.items()]

    def action(self, call: McpCall) -> Action:
        """Raise ActionNotAllowed for what is none."""
        named = self._tools.get(call.tool) if call.method == CALL else self._methods.get(call.method)
        if named is not None:
            return named
        if self.is_greeting(call):
            return ANY_ACTION
        what = f"tool {call.tool[:64]!r}" if call.method == CALL else f"method {call.method[:64]!r}"
        raise ActionNotAllowed(f"no action is defined for {what}")

    def is_greeting(self, call: McpCall) -> bool:
        """Whether it is no action of its own."""
        return call.method not in self._methods and (call.method in GREETINGS or not call.method)

    def may_call(self, token: TaskToken, tool: str) -> bool:
        """Whether the task of a token may call a tool with some arguments, by this token or by one of its own."""
        action = self._tools.get(tool)
        return action is not None and action.name in token.listed and takes(token, action, self._person)

    def __call__(self, method: str, path: str) -> Action | None:
        """The call of a request that has no message: it begins or ends a stream of answers."""
        return ANY_ACTION if path == self._path and method in {"GET", "DELETE"} else None


@dataclass(frozen=True, slots=True)
class McpRefusal:
    """A refusal as MCP clients read it: a JSON-RPC error beside status and challenges, so that a model learns why."""

    refusal: Refusal

    @property
    def status(self) -> int:
        return self.refusal.status

    @property
    def message(self) -> str:
        return self.refusal.description

    @property
    def data(self) -> dict[str, Any]:
        return {"error": self.refusal.error or "no_token", "status": self.refusal.status}

    def headers(self) -> list[tuple[str, str]]:
        return self.refusal.headers()

    def body(self) -> bytes:
        error = {"code": REFUSED, "message": self.message, "data": self.data}
        return json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()


class McpGuard(TaskTokenMiddleware):
    """Guards the application that `MCPServer.streamable_http_app()` makes, and runs with it.

    `tools` says which action a tool is, by its name; `methods` the same of other methods, as
    `{"resources/read": "doc:read"}`. What a client must say before it calls a tool needs a token that is good here, for
    whatever it is, and `tools/list` tells of the tools that it allows; all else, and every path but `path`, is refused,
    but for the `public` routes. `Action("ticket:read", params={"ticket": argument()})` says which argument is the
    task's parameter, which is compared with it: without, a call by a task that has the parameter is refused, since
    which arguments a tool minds it alone knows. A token for one request is compared with the tool's name and arguments
    (`bound.of_tool`).

    A tool finds its token by `serving_token()`, and the library its own kind of token by `get_access_token()`. A
    session is the task's that began it, and a stream of answers is not taken up again (`Last-Event-ID`): a store of
    events may have those of others under the same number. A server that has the library's own authentication works
    behind this with a TaskTokenVerifier.
    """

    def __init__(
        self,
        app: App,
        *,
        tools: ActionsByName,
        methods: ActionsByName | None = None,
        path: str = "/mcp",
        verifier: TaskVerifier | None = None,
        audience: str | None = None,
        socket: str | None = None,
        base_url: str | None = None,
        metadata: bool = True,
        public: Iterable[str] = (),
        wait_for_agent: float = 0,
        strict: bool = False,
        person: Taking = "refused",
    ) -> None:
        """`verifier` or `audience` and the others are TaskTokenMiddleware's."""
        self._tools = _Tools(tools, methods, path, person)
        self._path = path
        super().__init__(
            _HandOn(app, self._over),
            actions=self._tools,
            verifier=verifier,
            audience=audience,
            socket=socket,
            base_url=base_url,
            metadata=metadata,
            public=public,
            wait_for_agent=wait_for_agent,
            strict=strict,
            person=person,
        )

    async def _judge(self, scope: Scope, asked: HttpRequest | Refusal, content: Content) -> TaskToken | GuardAnswer:
        if scope["type"] != "http":
            return Refusal(403, "insufficient_scope", "this service speaks MCP over HTTP requests alone")
        if isinstance(asked, Refusal):
            return asked
        guard = await self._running()
        if guard is None or asked.method != "POST" or asked.path != self._path:
            verdict = await super()._judge(scope, asked, content)
            again = isinstance(verdict, TaskToken) and any(name.lower() == _TAKEN_UP for name, _ in asked.headers)
            return McpRefusal(_NOT_TAKEN_UP) if again else verdict
        verdict = await self._judge_message(guard, asked, scope, content)
        return McpRefusal(verdict) if isinstance(verdict, Refusal) else verdict

    async def _judge_message(
        self, guard: Guard, request: HttpRequest, scope: Scope, content: Content
    ) -> TaskToken | GuardAnswer:
        call = McpCall("", "", {})
        if any(name.lower() == "authorization" for name, _ in request.headers):  # else nothing of it is worth reading
            try:
                call = read(await content.read())
            except InvalidInput as error:
                refusal = Refusal(413 if isinstance(error, TooLarge) else 400, "invalid_request", error.public)
                return guard.tell(Attempt(request.method, request.target), refusal, error.code)

        async def digest() -> str:
            return call.digest

        scope[_LISTING] = call.method == LIST
        stated = stating(Arguments(call.arguments))
        return await guard.check_request(request, lambda: self._tools.action(call), digest, stated, _attempt(call))

    async def _serve(self, token: TaskToken, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.pop(_LISTING, False):
            send = Listing(send, partial(self._tools.may_call, token)).send
            plain = [(name, value) for name, value in scope["headers"] if name.lower() != b"accept-encoding"]
            scope = {**scope, "headers": plain}  # what is compressed could not be read here
        await super()._serve(token, scope, receive, send)

    async def _over(self, token: TaskToken) -> None:
        """Return when what began with a token must end."""
        guard = await self._running()
        verifier = guard.verifier if guard is not None else None
        if isinstance(verifier, TaskVerifier):
            await verifier.wait_over(token)


class _HandOn:
    """Hands the verified token on to the library behind: as its user, and under the scheme that it knows."""

    def __init__(self, app: App, over: Callable[[TaskToken], Awaitable[None]]) -> None:
        with extra("mcp"):
            from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
        self._app = app
        self._inner: App = AuthContextMiddleware(app)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = scope.get(SCOPE_KEY)
        if not isinstance(token, TaskToken):  # its lifespan
            await self._app(scope, receive, send)
            return
        from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser

        headers = [(name, value) for name, value in scope["headers"] if name.lower() not in {b"authorization", b"dpop"}]
        headers.append((b"authorization", b"Bearer " + token.token.encode("ascii")))
        handed = {**scope, "headers": headers, "user": AuthenticatedUser(_access_token(token))}
        with serving(token):
            if scope["method"] == "POST":
                await self._inner(handed, receive, send)
            else:  # it may stream for as long as the client listens
                await self._while_it_lives(token, self._inner(handed, receive, send))

    async def _while_it_lives(self, token: TaskToken, answering: Awaitable[None]) -> None:
        answer, over = asyncio.ensure_future(answering), asyncio.ensure_future(self._over(token))
        try:
            await asyncio.wait([answer, over], return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                await answer
        finally:
            for each in (answer, over):
                each.cancel()
            await asyncio.gather(answer, over, return_exceptions=True)


class TaskTokenVerifier:
    """The `token_verifier` of a server that has the library's own authentication, and McpGuard before it.

    It knows the token of the request that McpGuard has let in, and no other.
    """

    async def verify_token(self, token: str) -> "AccessToken | None":
        """See mcp.server.auth.provider.TokenVerifier."""
        try:
            verified = serving_token()
        except InvalidInput:
            return None
        return _access_token(verified) if secrets.compare_digest(verified.token, token) else None


def _access_token(token: TaskToken) -> "AccessToken":
    from mcp.server.auth.provider import AccessToken

    # The library holds a session, and what a server has a client carry, to client and subject. So these are a task's,
    # and two people of one `sub` at two issuers are two.
    subject = f"{token.person.issuer}|{token.person.subject}" if token.person is not None else token.subject
    return AccessToken(
        token=token.token,
        client_id=str(token.actor),
        scopes=list(token.actions),
        expires_at=int(token.expires_at.timestamp()),
        resource=token.resource,
        subject=f"{subject}|{token.task_id}",
        claims=dict(token.claims),
    )


def _attempt(call: McpCall) -> Attempt:
    """A message as records name it."""
    return Attempt(call.method, call.tool)


class McpStdioGuard:
    """Guards an MCP server over stdio: `MCPServer("…", middleware=[McpStdioGuard(tools=…, audience=…)])`.

    Each call of a tool needs a token in its `_meta` (see `mcpclient.call_tool`), with a DPoP proof beside it if it is
    bound: by POST, for the audience. Client and server see what goes through the pipe; nobody else does. Tools do not:
    both are taken out. `tools` and `methods` are those of McpGuard, but that greetings need no token.
    """

    def __init__(
        self,
        *,
        tools: ActionsByName,
        audience: str,
        methods: ActionsByName | None = None,
        socket: str | None = None,
        strict: bool = False,
        person: Taking = "refused",
    ) -> None:
        with extra("mcp"):
            from mcp.shared.exceptions import MCPError
        self._error: Any = MCPError
        self._tools = _Tools(tools, methods)
        warn_of_absent_agent(audience, socket)
        self._guard = LoopGuard(audience, socket=socket, strict=strict, routes=self._tools.routes, person=person)

    async def __call__(self, ctx: "ServerRequestContext[Any, Any]", call_next: "CallNext") -> "HandlerResult":
        """Raise MCPError for what is refused."""
        try:
            call, meta = call_of(ctx.method, ctx.params), meta_of(ctx.params)
        except InvalidInput as error:
            raise self._refusal(Refusal(400, "invalid_request", error.public)) from None
        if self._tools.is_greeting(call):
            with serving(None):
                return await call_next(ctx)
        headers = [
            (name, value)
            for name, key in (("authorization", AUTHORIZATION_KEY), ("dpop", PROOF_KEY))
            if isinstance(value := meta.pop(key, None), str)
        ]

        async def judge(guard: Guard) -> Verdict:
            path = urlsplit(guard.verifier.audience).path
            request = HttpRequest("POST", path, "", headers)
            stated = stating(Arguments(call.arguments))
            action = partial(self._tools.action, call)
            return await guard.check_request(request, action, digest, stated, _attempt(call))

        async def digest() -> str:
            return call.digest

        verdict = await self._guard.judge(judge)
        if not isinstance(verdict, TaskToken):
            raise self._refusal(verdict)
        with serving(verdict):
            ours = {AUTHORIZATION_KEY, PROOF_KEY}
            told: Any = ctx.meta and {name: value for name, value in ctx.meta.items() if name not in ours}
            return await call_next(replace(ctx, params={**(ctx.params or {}), "_meta": meta}, meta=told))

    async def start(self) -> None:
        """Begin before the first call. Raise what keeps the guard from that: one that is `strict`, RoutesNotBound."""
        await self._guard.start()

    async def close(self) -> None:
        """Let go of the connection to the agent. Reports that wait are sent first."""
        await self._guard.close()

    def _refusal(self, answer: GuardAnswer) -> Exception:
        told = {name: value for name, value in answer.headers() if name == "dpop-nonce"}
        refusal = McpRefusal(answer) if isinstance(answer, Refusal) else None
        data = {**(refusal.data if refusal is not None else {"status": answer.status}), **told}
        made: Exception = self._error(REFUSED, refusal.message if refusal is not None else "", data)
        return made
