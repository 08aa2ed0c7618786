"""What goes on after its token was judged, over ASGI: WebSockets, uploads and long answers end when the token's task is
over.

To the application that is a client that has gone, which it must be ready for anyway.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Final

from sojourn.sdk.guard.challenges import Refusal
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.sdk.integrations.task_over import TaskIsOver
from sojourn.tasktoken.tokens import TaskToken

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Serve = Callable[[Receive, Send], Awaitable[None]]

POLICY_VIOLATION: Final = 1008  # RFC 6455, 7.4.1
# What sends content of an answer; the last two are extensions of servers', for files.
_CONTENT: Final = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})
_CLOSE_SECONDS: Final = 1.0  # for a client that reads nothing
_REASON_MAX: Final = 120  # bytes that a close frame has room for, nearly (RFC 6455, 5.5)


async def serve_socket(verifier: TaskVerifier, token: TaskToken, receive: Receive, send: Send, serve: Serve) -> None:
    """Serve a WebSocket until the application is done with it, or the token's task is over: then it is closed."""
    over = asyncio.ensure_future(verifier.wait_over(token))
    socket = _Socket(receive, send, over)
    closing = asyncio.ensure_future(socket.close_when_over())
    try:
        await serve(socket.receive, socket.send)
    finally:
        if over.done():  # the application may have heard it first
            await asyncio.wait([closing], timeout=_CLOSE_SECONDS)
        await _let_go(over, closing, socket.next)


async def serve_request(
    verifier: TaskVerifier, token: TaskToken, receive: Receive, send: Send, serve: Serve
) -> Refusal | None:
    """Serve a request. Content that comes in parts, and an answer in parts, end once the token's task has.

    Return what is to be answered, if the application has not: reading has raised TaskIsOver.
    """
    request = _Request(verifier, token, receive, send)
    try:
        await serve(request.receive, request.send)
    except TaskIsOver as over:
        if request.began:
            raise
        return over.refusal()
    finally:
        await _let_go(request.over, request.next)
    return None


class _Socket:
    def __init__(self, receive: Receive, send: Send, over: "asyncio.Future[str]") -> None:
        self._receive = receive
        self._send = send
        self._over = over
        self._closed = False
        self.next: asyncio.Future[Message] | None = None  # that the application waits for

    async def receive(self) -> Message:
        if self.next is None:
            self.next = asyncio.ensure_future(self._receive())
        await _first(self.next, self._over)
        if self._over.done():
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": self._over.result()}
        message, self.next = self.next.result(), None
        return message

    async def send(self, message: Message) -> None:
        if self._over.done():
            raise TaskIsOver(self._over.result())
        self._closed = self._closed or message["type"] == "websocket.close"
        await self._send(message)

    async def close_when_over(self) -> None:
        why = await self._over
        if not self._closed:
            with suppress(Exception):  # the client, or the server, may have gone too
                await self._send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": why[:_REASON_MAX]})


class _Request:
    def __init__(self, verifier: TaskVerifier, token: TaskToken, receive: Receive, send: Send) -> None:
        self._verifier = verifier
        self._token = token
        self._receive = receive
        self._send = send
        self._content_began = self._content_ended = False
        self.began = self._answering = False
        self.next: asyncio.Future[Message] | None = None
        self.over: asyncio.Future[str] | None = None

    async def receive(self) -> Message:
        if not self._content_ended:
            message = await self._part() if self._content_began else await self._receive()
            self._content_began = True
            if why := self._verifier.over(self._token):
                raise TaskIsOver(why)
            self._content_ended = message["type"] != "http.request" or not message.get("more_body", False)
            return message
        try:  # the application waits for its client to go, as while it answers in parts
            return await self._part()
        except TaskIsOver:
            return {"type": "http.disconnect"}

    async def _part(self) -> Message:
        """What comes next. Raise TaskIsOver once the task is, though nothing comes."""
        if self.over is None:
            self.over = asyncio.ensure_future(self._verifier.wait_over(self._token))
        if self.next is None:
            self.next = asyncio.ensure_future(self._receive())
        await _first(self.next, self.over)
        if self.over.done():
            raise TaskIsOver(self.over.result())
        message, self.next = self.next.result(), None
        return message

    async def send(self, message: Message) -> None:
        if message["type"] in _CONTENT:
            if self._answering and (why := self._verifier.over(self._token)):
                raise TaskIsOver(why)
            self._answering = True
        self.began = True
        await self._send(message)


async def _first(*futures: "asyncio.Future[Any]") -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _let_go(*futures: "asyncio.Future[Any] | None") -> None:
    waited = [each for each in futures if each is not None]
    for each in waited:
        each.cancel()
    if waited:
        await asyncio.gather(*waited, return_exceptions=True)
