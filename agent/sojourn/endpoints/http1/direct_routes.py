"""The way to the handlers that most requests are for: Starlette's own, through its middleware and routes, is longer."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sojourn.runtime import trace

_TRACEPARENT = trace.HEADER.encode()
Handler = Callable[[Request], Awaitable[Response]]


class Straight:
    """An ASGI application: a POST to one of these paths, exactly, goes to its handler, all else to `others`.

    Handlers raise nothing: whatever goes wrong, they answer.
    """

    def __init__(self, posts: Mapping[str, Handler], others: ASGIApp) -> None:
        self._posts = dict(posts)
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        values = [value for name, value in scope.get("headers", ()) if name == _TRACEPARENT]
        if not values:
            await self._answer(scope, receive, send)
            return
        with trace.following(values):
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["type"] == "http" and scope["method"] == "POST"
        handler = self._posts.get(scope["path"]) if asked else None
        if handler is None:
            await self._others(scope, receive, send)
            return
        response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)
