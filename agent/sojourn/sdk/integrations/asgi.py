"""ASGI middleware: no request without a live task whose token allows its action."""

import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote, unquote

from sojourn.errors import InvalidInput, SojournError, TooLarge
from sojourn.errors.oauth import RoutesNotBound
from sojourn.limits import GUARDED_CONTENT_MAX_BYTES
from sojourn.sdk.client.client import Client
from sojourn.sdk.guard.challenges import GuardAnswer, Refusal
from sojourn.sdk.guard.guard import Guard, HttpRequest
from sojourn.sdk.guard.lazy import UNREADY, LoopGuard
from sojourn.sdk.guard.person_check import REFUSED, Taking
from sojourn.sdk.guard.public_routes import PublicRoutes
from sojourn.sdk.guard.route_check import hold
from sojourn.sdk.guard.routes import Actions, action_finder, routes_of
from sojourn.sdk.guard.serving_token import serving
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.sdk.integrations.asgi_streams import POLICY_VIOLATION, Receive, Send, serve_request, serve_socket
from sojourn.sdk.integrations.own_routes import OwnRoutes
from sojourn.tasktoken.tokens import TaskToken

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SCOPE_KEY = "sojourn.task"
_DENIAL = "websocket.http.response"
_IN_PATHS: Final = "/:@!$&'()*+,;=~"  # what stands there unescaped


class TaskTokenMiddleware:
    """Guards an ASGI application. The TaskToken of a request that passes is in `scope["sojourn.task"]`.

    Its `actor` is who calls, and its `subject` on whose behalf that is: a `person`, where the guard or the action takes
    tokens for one, or the workload `spiffe_id`, which is another than the actor if a task was handed on.
    `actions` says which action a request is (see `action_finder`); a request that is none is answered 403. A route that
    the application has as well is for that one alone, if its framework can be asked (FastAPI, Starlette, Litestar,
    Flask and Django): the log `sojourn.guard` warns of others whose path it matches. Either give a running `verifier`,
    or `audience` and perhaps `socket`: then the middleware has its own verifier, which starts and stops with the
    application's lifespan. One that is told of no lifespan, as in a mounted application, starts with its first request,
    and `close` lets go of it. WebSockets, and content and answers that come in parts, end when their task is over:
    reading raises TaskIsOver, an OSError, for which the guard answers 401 if the application does not.
    """

    def __init__(
        self,
        app: App,
        *,
        actions: Actions,
        verifier: TaskVerifier | None = None,
        audience: str | None = None,
        socket: str | None = None,
        base_url: str | None = None,
        metadata: bool = True,
        public: Iterable[str] = (),
        wait_for_agent: float = 0,
        strict: bool = False,
        person: Taking = REFUSED,
    ) -> None:
        """`base_url`, `metadata` and `person` are the Guard's. `public` are the routes that need no token (see
        PublicRoutes).

        With `wait_for_agent` the application starts once the agent has told of its live tasks, or after so many seconds
        without it: until it does, requests are answered 503. A guard that is `strict` lets the server not start where
        it would refuse tasks whose parameters its routes have no place for; else that is a warning of the log
        `sojourn.guard`.
        """
        if (verifier is None) == (audience is None):
            raise InvalidInput("TaskTokenMiddleware needs either a verifier or an audience")
        self.app = app
        self._make_guard = partial(Guard, actions=actions, base_url=base_url, metadata=metadata, person=person)
        self._given = None if verifier is None else self._make_guard(verifier)
        self._guard = self._given
        self._socket = socket
        self._audience = audience or ""
        self._wait_seconds = wait_for_agent
        self._routes, self._strict = routes_of(actions), strict
        action_finder(actions)  # a route that cannot be is told now, not when the server starts
        self._public = PublicRoutes(public, actions)
        self._own = OwnRoutes(app, actions, self._public.routes)
        self._unannounced = LoopGuard(
            self._audience, socket=socket, make=self._make_guard, routes=self._routes, strict=strict
        )
        self._ended = False  # the lifespan, after which nothing is begun anew

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._own.tell_once(_mounted(scope))
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] in {"http", "websocket"}:
            # What is judged is what the application has: a server may add the trailers of chunked content to its list.
            scope = {**scope, "headers": list(scope["headers"])}
            asked = self._asked(scope)
            if scope["type"] == "http" and self._is_public(asked):
                with serving(None):
                    await self.app({name: value for name, value in scope.items() if name != SCOPE_KEY}, receive, send)
                return
            content = Content(receive)
            verdict = await self._judge(scope, asked, content)
            if isinstance(verdict, TaskToken):
                with serving(verdict):
                    await self._serve(verdict, {**scope, SCOPE_KEY: verdict}, content.again, send)
            else:
                await _answer(verdict, scope, receive, send)
        else:
            raise InvalidInput(f"ASGI scope {scope['type']!r} is not known, and so not let through")

    async def close(self) -> None:
        """Let go of a guard that was begun by a request. Reports that wait are sent first."""
        await self._unannounced.close()

    def _is_public(self, asked: HttpRequest | Refusal) -> bool:
        if not self._public or isinstance(asked, Refusal):
            return False
        return self._public.has(asked.method, asked.path, [name for name, _ in asked.headers], asked.destination)

    def _asked(self, scope: Scope) -> HttpRequest | Refusal:
        """The request of a scope, or what one is refused with that is no request to judge."""
        try:
            request, mounted = _request_of(scope), _mounted(scope)
        except InvalidInput as error:
            return Refusal(400, "invalid_request", error.public)
        named = unquote(request.path).startswith(mounted + "/")  # whoever stands before us may have taken it away
        return replace(request, destination=self._own.destination(scope, mounted if named else ""))

    async def _running(self) -> Guard | None:
        if self._guard is not None or self._ended:
            return self._guard
        return await self._unannounced.running()

    async def _serve(self, token: TaskToken, scope: Scope, receive: Receive, send: Send) -> None:
        guard = await self._running()
        verifier = guard.verifier if guard is not None else None
        if not isinstance(verifier, TaskVerifier):
            await self.app(scope, receive, send)
            return
        serve = partial(self.app, scope)
        if scope["type"] == "websocket":
            await serve_socket(verifier, token, receive, send, serve)
        elif (refusal := await serve_request(verifier, token, receive, send, serve)) is not None:
            await _answer(refusal, scope, receive, send)

    async def _judge(self, scope: Scope, asked: HttpRequest | Refusal, content: "Content") -> TaskToken | GuardAnswer:
        guard = await self._running()
        if guard is None:
            return UNREADY
        if isinstance(asked, Refusal):
            return asked
        return await guard.check(asked, content.read if scope["type"] == "http" else _nothing)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            if self._given is None:
                client = await stack.enter_async_context(Client(self._socket))
                verifier = await stack.enter_async_context(TaskVerifier(client, self._audience))
                if self._wait_seconds > 0:
                    with suppress(SojournError):  # it has been logged, and requests are refused meanwhile
                        await verifier.feed.wait_ready(self._wait_seconds)
                self._guard, self._ended = self._make_guard(verifier), False
            try:
                if self._guard is not None and isinstance(self._guard.verifier, TaskVerifier):
                    await hold(self._guard.verifier, self._routes, strict=self._strict)
                await _Lifespan(self.app, stack.aclose).run(scope, receive, send)
            except RoutesNotBound as error:
                await receive()  # lifespan.startup
                await send({"type": "lifespan.startup.failed", "message": error.public})
            finally:
                self._guard, self._ended = self._given, True


class _Lifespan:
    """Runs the application's lifespan, or a bare one of our own if the application has none.

    `close` is called before the server hears that all is done: it waits for nothing that comes after.
    """

    def __init__(self, app: App, close: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._close = close
        self._received: MutableMapping[str, Any] | None = None
        self._answered = False

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_once() -> MutableMapping[str, Any]:
            self._received = await receive()
            return self._received

        async def send_noted(message: MutableMapping[str, Any]) -> None:
            self._answered = True
            if message["type"].startswith("lifespan.shutdown."):
                await self._close()
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
        await send_noted({"type": "lifespan.shutdown.complete"})


class Content:
    """The content of a request: read whole if it must be judged, and there for the application all the same."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._held: list[MutableMapping[str, Any]] = []

    async def read(self) -> bytes:
        """Raise TooLarge, or InvalidInput if the client went away."""
        found, more = bytearray(), True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise InvalidInput("request has ended before its content did")
            found += message.get("body", b"")
            if len(found) > GUARDED_CONTENT_MAX_BYTES:
                raise TooLarge(f"content of a request that is compared is at most {GUARDED_CONTENT_MAX_BYTES} bytes")
            more = message.get("more_body", False)
        content = bytes(found)
        self._held.append({"type": "http.request", "body": content, "more_body": False})
        return content

    async def again(self) -> MutableMapping[str, Any]:
        """What was read, then what comes."""
        return self._held.pop(0) if self._held else await self._receive()


async def _nothing() -> bytes:
    return b""


async def _answer(answer: GuardAnswer, scope: Scope, receive: Receive, send: Send) -> None:
    prefix = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if _DENIAL not in scope.get("extensions", {}):
            reason = answer.description if isinstance(answer, Refusal) else ""
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason})
            return
        prefix = _DENIAL
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers()]
    await send({"type": f"{prefix}.start", "status": answer.status, "headers": headers})
    await send({"type": f"{prefix}.body", "body": answer.body()})


def _request_of(scope: Scope) -> HttpRequest:
    """Raise InvalidInput for a path that is another one for the server than for the application."""
    path = _path(scope)
    return HttpRequest(
        method=scope["method"] if scope["type"] == "http" else "GET",  # a WebSocket handshake is a GET
        path=path,
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
        certificate=_certificate(scope.get("extensions", {}).get("tls") or {}),
    )


def _path(scope: Scope) -> str:
    """The path as it was sent. Applications route by what the server, or whoever stands before us, has made of it."""
    path = scope["path"]
    raw = (scope.get("raw_path") or b"").partition(b"?")[0]
    if not raw:  # a server need not give it: then what it has decoded is what the application sees
        return quote(path, safe=_IN_PATHS)
    if not raw.isascii():
        raise InvalidInput("path has bytes that are not ASCII: they are escaped, as UTF-8")
    sent: str = raw.decode("ascii")
    if unquote(sent) not in {path, _mounted(scope) + path}:  # with, or without, what it is mounted at
        raise InvalidInput("path is another one for the server than for the application")
    return sent


def _mounted(scope: Scope) -> str:
    """Where the application is mounted, without a slash at the end."""
    return (scope.get("root_path") or "").rstrip("/")


def _certificate(tls: Mapping[str, Any]) -> bytes | None:
    """The client's certificate by the TLS extension of ASGI, if the server has verified it."""
    chain = tls.get("client_cert_chain") or ()
    if tls.get("client_cert_error") or not chain:
        return None
    return ssl.PEM_cert_to_DER_cert(chain[0])
