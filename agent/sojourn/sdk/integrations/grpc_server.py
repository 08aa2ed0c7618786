"""gRPC server interceptors: no call without a live task whose token allows its action.

A token comes as metadata, as over HTTP: `authorization: Bearer …`, or `authorization: DPoP …` with a proof in `dpop`,
whose method is POST and whose URL is the audience's origin and the method's full name. A token for one request is
compared with the request's bytes as they came, so it is of no use for a call that streams requests. No message of a
stream passes, either way, once the token's task has ended.
"""

import contextlib
import inspect
import itertools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, Final, Generic, TypeVar, Unpack

import grpc

from sojourn.errors import InvalidInput, SojournError
from sojourn.errors.oauth import ActionUsedUp, ParamNotBound, WrongParams
from sojourn.errors.people import PersonRefused
from sojourn.sdk.guard.attempts import Attempt
from sojourn.sdk.guard.challenges import GuardAnswer, Refusal
from sojourn.sdk.guard.lazy import UNREADY, GuardOptions, LoopGuard, Verdict, warn_of_absent_agent
from sojourn.sdk.guard.param_check import Stated, compare, compared_names, in_python, stating, times_of
from sojourn.sdk.guard.routes import Action
from sojourn.sdk.guard.serving_token import serving
from sojourn.sdk.guard.sync import SyncGuard
from sojourn.sdk.integrations.grpc_calls import (
    METHOD,
    ActionsOfMethods,
    GuardedMethods,
    MessageFields,
    digest_of,
    request_of,
    said,
    status_of,
    trailers,
)
from sojourn.sdk.integrations.grpc_contexts import for_nobody, kind_of, stepwise
from sojourn.sdk.request.flow import Call, Flow, drive, drive_async
from sojourn.tasktoken.tokens import TaskToken

AnyGuard = TypeVar("AnyGuard", bound=SyncGuard | LoopGuard)
_NO_REQUEST: Final = Refusal(403, ParamNotBound.oauth_error, "the stream has no request to compare with the task")
_UNREADABLE: Final = Refusal(400, "invalid_request", "request is no message of its type")


class _Interceptor(ABC, Generic[AnyGuard]):
    """An interceptor of either kind of server."""

    def __init__(
        self,
        *,
        actions: ActionsOfMethods,
        audience: str,
        open_methods: Iterable[str] = (),
        **options: Unpack[GuardOptions],
    ) -> None:
        self._methods = GuardedMethods(actions, open_methods)
        self._guard = self._make_guard(audience, options)

    @abstractmethod
    def _make_guard(self, audience: str, options: GuardOptions) -> AnyGuard: ...

    def _guarded(self, kind: "type[_Call[AnyGuard]]", method: str, handler: Any) -> Any:
        """The handler of a method: guarded, or for nobody if the method is open. None: there is no such method."""
        if handler is None:
            return None
        if method in self._methods.open:
            return for_nobody(handler)
        return kind(self._guard, method, self._methods.actions.get(method), handler).handler()


class TaskTokenInterceptor(_Interceptor[SyncGuard], grpc.ServerInterceptor):
    """Guards a server of threads: `grpc.server(…, interceptors=[TaskTokenInterceptor(…)])`.

    `actions` says which action a method is, by its full name, `/package.Service/Method`; another method is refused but
    for the `open_methods`. The task's parameters are compared with the fields of the request's message that have their
    names, or those that an `Action("order:read", params={"order": field("order.id")})` names; of a stream of requests
    each is, and it begins with the first. The method finds its token by `serving_token()`. Each process has a guard of
    its own, from its first call on.
    """

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        return self._guarded(_SyncCall, handler_call_details.method, handler)

    def start(self) -> None:
        """Begin before the first call. Raise what keeps the guard from that: one that is `strict`, RoutesNotBound."""
        self._guard.start()

    def close(self) -> None:
        """Let go of the connection to the agent. Reports that wait are sent first."""
        self._guard.close()

    def _make_guard(self, audience: str, options: GuardOptions) -> SyncGuard:
        return SyncGuard({}, audience=audience, metadata=False, routes=self._methods.routes, **options)


class AioTaskTokenInterceptor(_Interceptor[LoopGuard], grpc.aio.ServerInterceptor):
    """TaskTokenInterceptor for `grpc.aio.server`, whose methods are coroutines."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        return self._guarded(_AioCall, handler_call_details.method, handler)

    async def start(self) -> None:
        """See TaskTokenInterceptor."""
        await self._guard.start()

    async def close(self) -> None:
        """See TaskTokenInterceptor."""
        await self._guard.close()

    def _make_guard(self, audience: str, options: GuardOptions) -> LoopGuard:
        warn_of_absent_agent(audience, options.get("socket"))
        return LoopGuard(audience, routes=self._methods.routes, **options)


class _Call(ABC, Generic[AnyGuard]):
    """One call: a handler is made for each. Its methods are named as gRPC names the kinds of calls."""

    _abort: Callable[[GuardAnswer, Any], Any]

    def __init__(self, guard: AnyGuard, method: str, action: Action | None, handler: Any) -> None:
        self._guard = guard
        self._method = method
        self._action = action
        self._inner = handler
        self._passed = 0  # requests of the stream

    def handler(self) -> Any:
        """The same kind of handler, with requests as they came."""
        inner = self._inner
        kind = kind_of(inner)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        read = inner.request_deserializer if inner.request_streaming else None
        return make(getattr(self, kind), request_deserializer=read, response_serializer=inner.response_serializer)

    def admitted(self, raw: bytes, context: Any) -> Flow[Call, tuple[TaskToken, Any]]:
        """The token of a call with one request, and that request. The call is ended if either is not good."""
        request = self.read(raw)
        token = yield from self.judged(raw, request, context)
        if request is _UNREADABLE:
            yield partial(self._abort, _UNREADABLE, context)
        return token, request

    def judged(self, raw: bytes | None, request: object, context: Any) -> Flow[Call, TaskToken]:
        """The token of a call, which is ended if that is not good. `raw` None: its requests are streamed."""
        verdict = yield partial(self._verdict, raw, self.stated(raw, request), context)
        if not isinstance(verdict, TaskToken):
            raise (yield partial(self._abort, verdict, context))
        return verdict

    @abstractmethod
    def _verdict(self, raw: bytes | None, stated: Stated, context: Any) -> Any:
        """What the guard says of a call. Another verdict than a token is told to the caller."""

    def needs_first(self, token: TaskToken) -> bool:
        """Whether a stream of requests is compared, so that what it is for is only known by its first."""
        return self._action is not None and bool(compared_names(token, self._action))

    def stated(self, raw: bytes | None, request: object) -> Stated:
        """What the one request of a call states; requests that are streamed are compared when they come."""
        later = raw is None or request is _UNREADABLE  # which is refused for what it is
        return stating(None if later else MessageFields(request))

    def read(self, raw: bytes) -> Any:
        """The request, or the refusal of what is none."""
        if self._inner.request_deserializer is None:
            return raw
        try:
            return self._inner.request_deserializer(raw)
        except Exception:  # noqa: BLE001  # whatever a service's own reader raises
            return _UNREADABLE

    def ended(self, token: TaskToken) -> Refusal | None:
        """The refusal of what a stream goes on with after the token's task is over."""
        why = self._guard.over(token)
        return Refusal(401, "invalid_token", why) if why else None

    def fits(self, token: TaskToken, request: object) -> Refusal | None:
        """The refusal of a streamed request whose task is over, or that is for another parameter than its token."""
        refusal = self.ended(token)
        if refusal is not None:
            return refusal
        action, fields = self._action or Action(""), MessageFields(request)
        try:
            compare(token, action, fields, in_python)
        except (WrongParams, ParamNotBound) as error:
            return self._refused(token, error, error.oauth_error)
        except PersonRefused as error:
            return self._refused(token, error, error.code)
        if action.name in token.asks and (self._passed or times_of(token, action, fields) > 1):
            used = ActionUsedUp("uses of this action are counted, and a stream is one: send one request for one")
            return self._refused(token, used, used.oauth_error)
        self._passed += 1
        return None

    def _refused(self, token: TaskToken, error: SojournError, said: str) -> Refusal:
        tried = Attempt(METHOD, self._method, verified=token, wanted=self._action)
        return self._guard.tell(tried, Refusal(403, said, error.public), error.code)


def _abort(refusal: GuardAnswer, context: Any) -> Exception:
    """Does not return: gRPC ends the call by an exception of its own."""
    context.set_trailing_metadata(trailers(refusal))
    context.abort(status_of(refusal), said(refusal))
    return InvalidInput("the call was ended")


class _SyncCall(_Call[SyncGuard]):
    _abort = staticmethod(_abort)

    def unary_unary(self, raw: bytes, context: Any) -> Any:
        token, request = drive(self.admitted(raw, context))
        with serving(token):
            return self._inner.unary_unary(request, context)

    def unary_stream(self, raw: bytes, context: Any) -> Iterator[Any]:
        token, request = drive(self.admitted(raw, context))
        return self._going_on(token, stepwise(token, lambda: self._inner.unary_stream(request, context)), context)

    def stream_unary(self, requests: Iterator[Any], context: Any) -> Any:
        token = drive(self.judged(None, None, context))
        fitting = self._begun(token, requests, context)
        with serving(token):
            return self._inner.stream_unary(fitting, context)

    def stream_stream(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        token = drive(self.judged(None, None, context))
        fitting = self._begun(token, requests, context)
        return self._going_on(token, stepwise(token, lambda: self._inner.stream_stream(fitting, context)), context)

    def _verdict(self, raw: bytes | None, stated: Stated, context: Any) -> Verdict:
        request = request_of(self._method, context)
        try:
            return self._guard.check_request(
                request, lambda: self._action, lambda: digest_of(self._method, raw), stated
            )
        except SojournError:  # there is no socket to go by
            return UNREADY

    def _going_on(self, token: TaskToken, answers: Generator[Any], context: Any) -> Iterator[Any]:
        with contextlib.closing(answers):
            for answer in answers:
                refusal = self.ended(token)
                if refusal is not None:
                    _abort(refusal, context)
                yield answer

    def _begun(self, token: TaskToken, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """The requests that fit; if they are compared the first has come and does."""
        fitting = self._fitting(token, requests, context)
        if not self.needs_first(token):
            return fitting
        first = list(itertools.islice(fitting, 1))
        if not first:
            _abort(_NO_REQUEST, context)
        return itertools.chain(first, fitting)

    def _fitting(self, token: TaskToken, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            refusal = self.fits(token, request)
            if refusal is not None:
                _abort(refusal, context)
            yield request
        if refusal := self.ended(token):  # what has come is not acted on
            _abort(refusal, context)


async def _abort_aio(refusal: GuardAnswer, context: Any) -> Exception:
    """See _abort."""
    await context.abort(status_of(refusal), said(refusal), trailers(refusal))
    return InvalidInput("the call was ended")


class _AioCall(_Call[LoopGuard]):
    _abort = staticmethod(_abort_aio)

    async def unary_unary(self, raw: bytes, context: Any) -> Any:
        token, request = await drive_async(self.admitted(raw, context))
        with serving(token):
            return await _answer(self._inner.unary_unary, request, context)

    async def unary_stream(self, raw: bytes, context: Any) -> None:
        token, request = await drive_async(self.admitted(raw, context))
        with serving(token):
            await _write_all(self._inner.unary_stream, request, self._checked(token, context))

    async def stream_unary(self, requests: AsyncIterator[Any], context: Any) -> Any:
        token = await drive_async(self.judged(None, None, context))
        checked = self._checked(token, context)
        if self.needs_first(token):
            await checked.begin()
        with serving(token):
            return await _answer(self._inner.stream_unary, checked.all(requests), checked)

    async def stream_stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        token = await drive_async(self.judged(None, None, context))
        checked = self._checked(token, context)
        if self.needs_first(token):
            await checked.begin()
        with serving(token):
            await _write_all(self._inner.stream_stream, checked.all(requests), checked)

    async def _verdict(self, raw: bytes | None, stated: Stated, context: Any) -> Verdict:
        request = request_of(self._method, context)

        async def digest() -> str:
            return digest_of(self._method, raw)

        return await self._guard.judge(lambda guard: guard.check_request(request, lambda: self._action, digest, stated))

    def _checked(self, token: TaskToken, context: Any) -> "_Checked":
        return _Checked(context, partial(self.fits, token), partial(self.ended, token))


class _Checked:
    """A context whose `read` and `write` check each message, as its `all` does."""

    def __init__(
        self, context: Any, fits: Callable[[Any], Refusal | None], ended: Callable[[], Refusal | None]
    ) -> None:
        self._context = context
        self._fits = fits
        self._ended = ended
        self._first: list[Any] = []

    async def begin(self) -> None:
        """Wait for the first request, and check it. What was sent without one is refused."""
        request = await self._context.read()
        if request is grpc.aio.EOF:
            await _abort_aio(_NO_REQUEST, self._context)
        self._first.append(await self._check(request))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        if self._first:
            return self._first.pop()
        request = await self._context.read()
        if request is not grpc.aio.EOF:
            return await self._check(request)
        await self._check_ended()
        return request

    async def write(self, answer: Any) -> None:
        await self._check_ended()
        await self._context.write(answer)

    async def all(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        if self._first:
            yield self._first.pop()
        async for request in requests:
            yield await self._check(request)
        await self._check_ended()  # what has come is not acted on

    async def _check_ended(self) -> None:
        refusal = self._ended()
        if refusal is not None:
            await _abort_aio(refusal, self._context)

    async def _check(self, request: Any) -> Any:
        refusal = self._fits(request)
        if refusal is not None:
            await _abort_aio(refusal, self._context)
        return request


async def _answer(behavior: Callable[[Any, Any], Any], request: Any, context: Any) -> Any:
    if inspect.iscoroutinefunction(behavior):
        return await behavior(request, context)
    raise InvalidInput("a guarded method of a grpc.aio server is a coroutine")


async def _write_all(behavior: Callable[[Any, Any], Any], request: Any, context: Any) -> None:
    if inspect.isasyncgenfunction(behavior):
        async with contextlib.aclosing(behavior(request, context)) as answers:
            async for answer in answers:
                await context.write(answer)
        return
    await _answer(behavior, request, context)
