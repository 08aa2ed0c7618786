"""httpx with a task's authority: each request has a token for its resource, and a proof. Needs `sojourn[http]`."""

import ssl
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from functools import partial
from typing import Any, Self

from sojourn.errors import InvalidInput
from sojourn.errors.oauth import OutsideTask
from sojourn.sdk.client.extras import extra
from sojourn.sdk.request.authorization import (
    AUTHORIZATION,
    CHALLENGE,
    DPOP,
    DPOP_NONCE,
    HttpAnswer,
    RequestFlow,
    Send,
    attach,
    want,
)
from sojourn.sdk.request.flow import Call, Flow, drive, drive_async
from sojourn.sdk.request.token_fetch import AsyncAsking, SyncAsking

with extra("http"):
    import httpx

Deliver = Callable[[httpx.Request], Any]


class TaskAuth(httpx.Auth):
    """For any client of httpx: `httpx.Client(auth=task.auth())`.

    A request goes out with a token of the task's grant that its URL belongs to, for `actions` (none: all that the task
    may do there), bound to the task's key in the agent unless `bound` is false, and with a proof of its own. It is sent
    again, once each, with the nonce that the service asks for, and with a new token if the first is not taken any more.
    For what is outside of the task OutsideTask is raised, and TaskOver when it has ended; nothing is sent then.

    When httpx follows a redirect it asks for no new token; `task.client` does, at each step of the way.
    """

    def __init__(self, asking: AsyncAsking | SyncAsking, *, actions: Iterable[str] = (), bound: bool = True) -> None:
        self._asking = asking
        self._actions = tuple(actions)
        self._bound = bound

    def with_actions(self, *actions: str) -> Self:
        """The same for these actions alone: `client.get(url, auth=auth.with_actions("ticket:read"))`."""
        return type(self)(self._asking, actions=actions, bound=self._bound)

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """For `httpx.Client`."""
        asking = self._asking
        if isinstance(asking, AsyncAsking):
            raise InvalidInput("this task was begun with `async with`: use an httpx.AsyncClient")
        flow = self._flow(request)
        send = asking.advance(flow, None, request.read)
        while send is not None:
            send = asking.advance(flow, _answer((yield _with(request, send))), request.read)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """For `httpx.AsyncClient`."""
        asking = self._asking
        if isinstance(asking, SyncAsking):
            raise InvalidInput("this task was begun with `with`: use an httpx.Client")
        flow = self._flow(request)
        send = await asking.advance(flow, None, request.aread)
        while send is not None:
            send = await asking.advance(flow, _answer((yield _with(request, send))), request.aread)

    def send(self, request: httpx.Request, deliver: Deliver, read: str, close: str) -> Flow[Call, httpx.Response]:
        """Send a request, and again as long as the service's answers ask for that. Return the last answer.

        The others are read to their ends, so that their connections serve again. `deliver`, and the methods of httpx
        that are named `read` and `close`, are either all blocking or all awaited.
        """
        flow, content = self._flow(request), getattr(request, read)
        send = yield from self._asking.until_send(flow, None, content)
        while True:
            assert send is not None  # what is None is told by an answer
            response: httpx.Response = yield partial(deliver, _with(request, send))
            response.request = request
            try:
                send = yield from self._asking.until_send(flow, _answer(response), content)
            except BaseException:
                yield getattr(response, close)
                raise
            if send is None:
                return response
            yield getattr(response, read)

    def _flow(self, request: httpx.Request) -> RequestFlow:
        url = request.url
        if url.userinfo or request.headers.get("Host", "").encode() != url.netloc:
            raise OutsideTask("a request for a task has no user in its URL and no other Host", resource=url.host)
        text = f"{url.scheme}://{url.netloc.decode('ascii')}{url.raw_path.decode('ascii')}"
        repeatable = isinstance(request.stream, httpx.ByteStream)
        wanted = want(self._asking.task, request.method, text, self._actions, bound=self._bound, repeatable=repeatable)
        return attach(wanted, self._asking.shelf)


class TaskTransport(httpx.BaseTransport):
    """Attaches a task's authority to each request just before it is sent: to each step of a redirect too.

    What the caller sees of the request has no token.
    """

    def __init__(self, auth: TaskAuth, inner: httpx.BaseTransport) -> None:
        self._auth = auth
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return drive(self._auth.send(_copy(request), self._inner.handle_request, "read", "close"))

    def close(self) -> None:
        self._inner.close()


class AsyncTaskTransport(httpx.AsyncBaseTransport):
    """See TaskTransport."""

    def __init__(self, auth: TaskAuth, inner: httpx.AsyncBaseTransport) -> None:
        self._auth = auth
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await drive_async(self._auth.send(_copy(request), self._inner.handle_async_request, "aread", "aclose"))

    async def aclose(self) -> None:
        await self._inner.aclose()


Timeout = httpx.Timeout | float | None


def client(
    auth: TaskAuth,
    base_url: str,
    verify: bool | ssl.SSLContext,
    transport: httpx.BaseTransport | None,
    **options: Any,
) -> httpx.Client:
    """A client whose requests have the task's authority. The `options` are httpx's own."""
    attaching = TaskTransport(auth, transport or httpx.HTTPTransport(verify=verify))
    return httpx.Client(base_url=base_url, transport=attaching, trust_env=False, **options)


def async_client(
    auth: TaskAuth,
    base_url: str,
    verify: bool | ssl.SSLContext,
    transport: httpx.AsyncBaseTransport | None,
    **options: Any,
) -> httpx.AsyncClient:
    """The same for asynchronous code."""
    attaching = AsyncTaskTransport(auth, transport or httpx.AsyncHTTPTransport(verify=verify))
    return httpx.AsyncClient(base_url=base_url, transport=attaching, trust_env=False, **options)


def _copy(request: httpx.Request) -> httpx.Request:
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _OURS]
    return httpx.Request(
        request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
    )


_OURS = frozenset({AUTHORIZATION.lower().encode(), DPOP.lower().encode()})


def _with(request: httpx.Request, send: Send) -> httpx.Request:
    for name in (AUTHORIZATION, DPOP):
        request.headers.pop(name, None)
    request.headers.update(send.headers)
    return request


def _answer(response: httpx.Response) -> HttpAnswer:
    headers = response.headers
    return HttpAnswer.of(response.status_code, headers.get_list(CHALLENGE), headers.get_list(DPOP_NONCE))
