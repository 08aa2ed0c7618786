"""gRPC client interceptors: each call has a token of a task, and a proof, that the calling code never sees."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import grpc

from sojourn.errors import InvalidInput
from sojourn.errors.oauth import OutsideTask
from sojourn.sdk.integrations.grpc_calls import METHOD
from sojourn.sdk.request.authorization import HttpAnswer, RequestFlow, Send, attach, want_at
from sojourn.sdk.request.flow import Call, Flow, drive, drive_async
from sojourn.sdk.request.token_fetch import AsyncAsking, SyncAsking
from sojourn.sdk.task.clients import AsyncUse, SyncUse
from sojourn.tasktoken import request_digest as digests

_OURS: Final = frozenset({"authorization", "dpop"})
Actions = Mapping[str, str]


def interceptors(
    task: SyncUse, resource: str, *, actions: Actions | None = None, bound: bool = True
) -> list["_Attaching"]:
    """For `grpc.intercept_channel(channel, *interceptors(task, "https://tickets.example.org"))`.

    `actions` says which action a method is, by its full name, `/package.Service/Method`; without, a token has all that
    the task may do at the resource. Each token is bound to the task's key in the agent unless `bound` is false. A call
    is made again, once each, with the nonce that the service asks for and with a new token if the first is not taken
    any more; one that streams its requests is not. A call with one answer has ended when it returns, a future's too.
    """
    return [_Attaching(_Calls(task.asking, resource, actions, bound=bound))]


def aio_interceptors(
    task: AsyncUse, resource: str, *, actions: Actions | None = None, bound: bool = True
) -> list[grpc.aio.ClientInterceptor]:
    """The same for `grpc.aio.secure_channel(target, credentials, interceptors=aio_interceptors(…))`."""
    calls = _Calls(task.asking, resource, actions, bound=bound)
    return [_OneOne(calls), _OneMany(calls), _ManyOne(calls), _ManyMany(calls)]


class _Calls:
    """What calls need, by their method."""

    def __init__(
        self, asking: AsyncAsking | SyncAsking, resource: str, actions: Actions | None, *, bound: bool
    ) -> None:
        self.asking: Any = asking
        self._resource = resource
        self._actions = actions
        self._bound = bound

    def flow(self, method: str | bytes, *, streams: bool) -> RequestFlow:
        """Raise TaskOver, or OutsideTask if the task may not call this."""
        name = method.decode("ascii") if isinstance(method, bytes) else method
        if self._actions is not None and name not in self._actions:
            raise OutsideTask(f"the method {name[:200]} is none of those that this channel is for")
        actions = (self._actions[name],) if self._actions is not None else ()
        parts = urlsplit(self._resource)
        url = f"{parts.scheme}://{parts.netloc}{name}"
        wanted = want_at(
            self.asking.task, self._resource, METHOD, url, actions, bound=self._bound, repeatable=not streams
        )
        return attach(wanted, self.asking.shelf, lambda content: digests.of_grpc(name, content))


class _Details(NamedTuple):
    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _SyncDetails(_Details, grpc.ClientCallDetails):
    pass


class _Sending:
    """One call: it is made with a token and a proof, and made again as long as the service's answers ask for that."""

    def __init__(self, calls: _Calls, details: Any, *, streams: bool, make: Callable[[Send], Any], read: Call) -> None:
        """`make` makes the call with these headers, and `read` gives the bytes of its request."""
        self._asking = calls.asking
        self._flow = calls.flow(details.method, streams=streams)
        self._make = make
        self._read = read

    def next(self, answer: HttpAnswer | None = None) -> Flow[Call, Any]:
        """The call as it is made after this answer to the one before. None: that answer is the caller's."""
        send = yield from self._asking.until_send(self._flow, answer, self._read)
        return None if send is None else (yield partial(self._make, send))

    def last(self) -> Flow[Call, Any]:
        """The call whose answer is the caller's, where each has one answer."""
        call = following = yield from self.next()
        while following is not None:
            call = following
            following = yield from self.next(_answer((yield call.code), (yield call.trailing_metadata)))
        return call


class _Attaching(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return drive(self._sending(continuation, client_call_details, request, streams=False).last())

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return drive(self._sending(continuation, client_call_details, request_iterator, streams=True).last())

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return _Answers(self._sending(continuation, client_call_details, request, streams=False))

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return _Answers(self._sending(continuation, client_call_details, request_iterator, streams=True))

    def _sending(self, continuation: Any, details: Any, request: Any, *, streams: bool) -> _Sending:
        def make(send: Send) -> Any:
            return continuation(_with(details, send), request)

        return _Sending(self._calls, details, streams=streams, make=make, read=partial(_content, request))


class _Answers:
    """The answers of a call that streams them. All else is asked of the call as it is at last."""

    def __init__(self, sending: _Sending) -> None:
        self._sending = sending
        self._begun = False
        self._call = drive(sending.next())

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            try:
                answer = next(self._call)
            except grpc.RpcError:
                if self._begun:
                    raise
                call = drive(self._sending.next(_answer(self._call.code(), self._call.trailing_metadata())))
                if call is None:
                    raise
                self._call = call
            else:
                self._begun = True
                return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class _Aio:
    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    async def _answered(self, continuation: Any, details: Any, request: Any, *, streams: bool) -> Any:
        return await drive_async(self._sending(continuation, details, request, streams=streams).last())

    async def _streamed(self, continuation: Any, details: Any, request: Any, *, streams: bool) -> AsyncIterator[Any]:
        sending = self._sending(continuation, details, request, streams=streams)
        # gRPC wants a call before this returns.
        return _aio_answers(sending, await drive_async(sending.next()))

    def _sending(self, continuation: Any, details: Any, request: Any, *, streams: bool) -> _Sending:
        def make(send: Send) -> Any:
            return continuation(_with_aio(details, send), request)

        async def read() -> bytes:
            return _content(request)

        return _Sending(self._calls, details, streams=streams, make=make, read=read)


async def _aio_answers(sending: _Sending, call: Any) -> AsyncIterator[Any]:
    begun = False
    while True:
        try:
            async for answer in call:
                begun = True
                yield answer
            return
        except grpc.aio.AioRpcError as error:
            if begun:
                raise
            call = await drive_async(sending.next(_answer(error.code(), error.trailing_metadata())))
            if call is None:
                raise


class _OneOne(_Aio, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._answered(continuation, client_call_details, request, streams=False)


class _OneMany(_Aio, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._streamed(continuation, client_call_details, request, streams=False)


class _ManyOne(_Aio, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._answered(continuation, client_call_details, request_iterator, streams=True)


class _ManyMany(_Aio, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._streamed(continuation, client_call_details, request_iterator, streams=True)


def _with(details: Any, send: Send) -> Any:
    return _SyncDetails(
        details.method,
        details.timeout,
        _metadata(details, send),
        details.credentials,
        details.wait_for_ready,
        details.compression,
    )


def _with_aio(details: Any, send: Send) -> Any:
    return details._replace(metadata=grpc.aio.Metadata(*_metadata(details, send)))


def _metadata(details: Any, send: Send) -> list[tuple[str, Any]]:
    kept = [(name, value) for name, value in details.metadata or () if name.lower() not in _OURS]
    return [*kept, *((name.lower(), value) for name, value in send.headers.items())]


def _answer(code: Any, trailing: Any) -> HttpAnswer:
    told = [(name, value) for name, value in trailing or () if isinstance(value, str)]
    nonces = [value for name, value in told if name == "dpop-nonce"]
    status = {grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.PERMISSION_DENIED: 403}.get(code, 0)
    return HttpAnswer(
        status, tuple(value for name, value in told if name == "www-authenticate"), nonces[0] if nonces else None
    )


def _content(request: Any) -> bytes:
    """The request's bytes, for a token that is for it alone."""
    if isinstance(request, bytes):
        return request
    serialize = getattr(request, "SerializeToString", None)
    if serialize is None:
        raise InvalidInput("a token is for one request alone here: a call that streams its requests has none")
    content: bytes = serialize()
    return content
