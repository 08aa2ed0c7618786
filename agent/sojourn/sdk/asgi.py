"""ASGI middleware: no request without a live task whose token allows its action."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from sojourn.errors import InvalidInput, InvalidToken
from sojourn.sdk.client import Client
from sojourn.sdk.routes import Actions, action_finder
from sojourn.sdk.verifier import ActionNotAllowed, TaskVerifier
from sojourn.tasks.tokens import TaskToken

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SCOPE_KEY = "sojourn.task"
_POLICY_VIOLATION = 1008  # RFC 6455, 7.4.1
_DENIAL = "websocket.http.response"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer by RFC 6750, 3. No `error`: the request had no token at all."""

    status: int
    error: str
    description: str

    def headers(self, realm: str) -> list[tuple[bytes, bytes]]:
        parts = [f'Bearer realm="{_quotable(realm)}"']
        if self.error:
            parts += [f'error="{self.error}"', f'error_description="{_quotable(self.description)}"']
        return [
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            (b"www-authenticate", ", ".join(parts).encode("ascii")),
        ]

    def body(self) -> bytes:
        return json.dumps({"error": self.error or "no_token", "error_description": self.description}).encode()


class TaskTokenMiddleware:
    """Guards an ASGI application. The TaskToken of a request that passes is in `scope["sojourn.task"]`.

    Its `actor` is who calls, its `spiffe_id` the subject, on whose behalf that is; they differ if a task was handed on.
    `actions` says which action a request is (see `action_finder`); a request that is none is answered 403. Either
    give a running `verifier`, or `audience` and perhaps `socket`: then the middleware has its own verifier, which
    starts and stops with the application's lifespan.
    """

    def __init__(
        self,
        app: App,
        *,
        actions: Actions,
        verifier: TaskVerifier | None = None,
        audience: str | None = None,
        socket: str | None = None,
    ) -> None:
        if (verifier is None) == (audience is None):
            raise InvalidInput("TaskTokenMiddleware needs either a verifier or an audience")
        self.app = app
        self._action_of = action_finder(actions)
        self._given = verifier
        self._verifier = verifier
        self._socket = socket
        self._audience = verifier.audience if verifier is not None else audience or ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] in {"http", "websocket"}:
            verdict = await self._judge(scope)
            if isinstance(verdict, TaskToken):
                await self.app({**scope, SCOPE_KEY: verdict}, receive, send)
            else:
                await self._refuse(verdict, scope, receive, send)
        else:
            raise InvalidInput(f"ASGI scope {scope['type']!r} is not known, and so not let through")

    async def _judge(self, scope: Scope) -> TaskToken | Refusal:
        if self._verifier is None:
            return Refusal(503, "temporarily_unavailable", "the verifier is not running: the server must run lifespan")
        method = scope["method"] if scope["type"] == "http" else "GET"  # a WebSocket handshake is a GET
        try:
            token = _bearer(scope)
            if token is None:
                return Refusal(401, "", "a task token is required")
            verified = await self._verifier.verify(token)
            action = self._action_of(method, scope["path"])
            if action is None:
                return Refusal(403, "insufficient_scope", "no action is defined for this method and path")
            if action not in verified.actions:
                raise ActionNotAllowed(f"token does not allow the action {action!r}")
        except InvalidToken as error:
            return Refusal(401, "invalid_token", error.public)
        except ActionNotAllowed as error:
            return Refusal(403, error.oauth_error, error.public)
        return verified

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = "http.response"
        if scope["type"] == "websocket":
            await receive()  # websocket.connect
            if _DENIAL not in scope.get("extensions", {}):
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal.description})
                return
            prefix = _DENIAL
        headers = refusal.headers(self._audience)
        await send({"type": f"{prefix}.start", "status": refusal.status, "headers": headers})
        await send({"type": f"{prefix}.body", "body": refusal.body()})

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            if self._given is None:
                client = await stack.enter_async_context(Client(self._socket))
                self._verifier = await stack.enter_async_context(TaskVerifier(client, self._audience))
            try:
                await _Lifespan(self.app).run(scope, receive, send)
            finally:
                self._verifier = self._given


class _Lifespan:
    """Runs the application's lifespan, or a bare one of our own if the application has none."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._received: MutableMapping[str, Any] | None = None
        self._answered = False

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_once() -> MutableMapping[str, Any]:
            self._received = await receive()
            return self._received

        async def send_noted(message: MutableMapping[str, Any]) -> None:
            self._answered = True
            await send(message)

        try:
            await self._app(scope, receive_once, send_noted)
            if self._answered:
                return
        except Exception:
            if self._answered:
                raise
        if self._received is None:
            await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _bearer(scope: Scope) -> str | None:
    """Return the token of the one Authorization header; None if there is none or of another scheme.

    Raise InvalidToken for several headers, or a Bearer header that is none (RFC 6750, 2.1).
    """
    values: list[bytes] = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    if len(values) > 1:
        raise InvalidToken("request has more than one Authorization header", reason_code="malformed")
    if not values:
        return None
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = token.strip(" ")
    if not token or " " in token:
        raise InvalidToken("Authorization header has no single token", reason_code="malformed")
    return token


def _quotable(text: str) -> str:
    """Only what may stand in error_description (RFC 6750, 3)."""
    return "".join(each if " " <= each <= "~" and each not in '"\\' else "?" for each in text)
