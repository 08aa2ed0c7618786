"""Between the streams of gRPC and the handlers: who calls, the security header, and errors as statuses.

Handlers raise `sojourn.errors`, and know nothing of statuses.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, nullcontext, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeVar

import structlog
from google.protobuf.message import Message
from prometheus_client import Counter as Metric

from sojourn.attestation.peer import Peer
from sojourn.audit.journal import Audit, named
from sojourn.endpoints.grpc.status_codes import GrpcStatus
from sojourn.errors import Bug, InvalidInput, LimitExceeded, Refused, SojournError, Unimplemented
from sojourn.errors.people import PersonRefused
from sojourn.http2.errors import BadMessage, MalformedMessage, MessageOverLimit, UnknownPacking
from sojourn.http2.host import Visitor
from sojourn.http2.server import Handler
from sojourn.http2.stream import Stream
from sojourn.limits import CALLS_PER_UID, REFUSALS_LOGGED_PER_SECOND, REQUEST_SECONDS, STREAMS_PER_UID
from sojourn.quota.concurrency import Concurrency
from sojourn.quota.rate import Rate
from sojourn.runtime import trace
from sojourn.runtime.background import Background

log = structlog.get_logger()
_GIVEN_UP: Final = "CANCELLED"  # by whoever called, or since the agent ends
CALLS = Metric("sojourn_calls_total", "gRPC calls that ended, by method and status.", ["method", "code"])
Request = TypeVar("Request", bound=Message)
HEADER = "workload.spiffe.io"
_HEADER, _TRACEPARENT = HEADER.encode(), trace.HEADER.encode()
# What callers are told of messages that cannot be read. An error of ours has a stable code, and the same status.
_TOLD: Final[dict[type[BadMessage], type[SojournError]]] = {
    MalformedMessage: InvalidInput,
    MessageOverLimit: LimitExceeded,
    UnknownPacking: Unimplemented,
}


class Requests:
    """The requests of one call, as messages of their type."""

    def __init__(self, stream: Stream, kind: type[Message]) -> None:
        self._stream = stream
        self._kind = kind

    @property
    def waiting(self) -> bool:
        """Whether the next one has yet to come."""
        return self._stream.waiting

    def __aiter__(self) -> "Requests":
        return self

    async def __anext__(self) -> Any:
        """Raise InvalidInput for what is no message of the type, and the like for what is none at all."""
        try:
            data = await self._stream.message()
        except BadMessage as error:
            raise _TOLD[type(error)](str(error)) from None
        if data is None:
            raise StopAsyncIteration
        try:
            return self._kind.FromString(data)
        except Exception:  # noqa: BLE001  # hostile input: whatever the library raises
            raise InvalidInput("request is not a message of the method's type") from None


@dataclass(frozen=True, slots=True)
class Call:
    """One call: who makes it, and what it is."""

    visitor: Visitor
    method: str
    requests: Requests
    send_now: Callable[[bytes], bool]  # `Stream.send_now`

    @property
    def peer(self) -> Peer:
        """The process of this machine that makes it."""
        if not isinstance(self.visitor, Peer):
            raise Bug("a call that is for processes of this machine came from elsewhere")
        return self.visitor

    @property
    def by(self) -> dict[str, int]:
        """Who made it, for the audit."""
        return {"by_uid": self.peer.uid, "by_pid": self.peer.process.pid}


Unary = Callable[[Call, Any], Awaitable[Any]]
Streaming = Callable[[Call, Any], AsyncIterator[Any]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method: how it is called, its request type, and the handler. Answers are messages or ready bytes.

    A `long` call waits for something: it counts among a user's streams, so that those who wait do not hold up others.
    Whether it is may depend on the request. A `whole` one is gone through with although its caller goes meanwhile.
    """

    kind: str  # unary | stream (answers) | bidi
    request: type[Message]
    handler: Unary | Streaming
    long: bool | Callable[[Any], bool] = False
    whole: bool = False


class Calls:
    """Makes gRPC handlers of ours."""

    def __init__(
        self,
        audit: Audit,
        *,
        header: bool,
        door: str = "public",
        streams: int = STREAMS_PER_UID,
        check: Callable[[Visitor], None] | None = None,
        whole: bool = False,
    ) -> None:
        """`header`: whether every call must carry the metadata `workload.spiffe.io: true` (Workload Endpoint, 3).

        `door`: by which the calls come, as the log has it.
        `streams`: how many streams one caller may hold. `check` raises what a caller's call is refused with.
        `whole`: all that are answered once and wait for nothing are gone through with although their callers go: what
        is half done is worse than what was interrupted too late.
        """
        self._whole = whole
        self._going_on = Background("call_without_caller_failed")
        self._check = check
        self._audit = audit
        self._header = header
        self._door = door
        self._unary_calls = Concurrency(CALLS_PER_UID, "calls under way")
        self._streams = Concurrency(streams, "open streams")
        self._silent = Concurrency(streams, "calls without a request")
        self._refusals = Rate(REFUSALS_LOGGED_PER_SECOND)

    def service(self, name: str, methods: dict[str, Method]) -> dict[str, Handler]:
        """Its methods by path."""
        make = {"unary": self._unary, "stream": self._streaming, "bidi": self._streaming}
        return {
            f"/{name}/{short}": _traced(make[method.kind](f"{name}/{short}", method))
            for short, method in methods.items()
        }

    def _unary(self, path: str, method: Method) -> Handler:
        ended_well = CALLS.labels(path, "OK")

        async def call(stream: Stream) -> None:
            with _Ending(self, path, stream, ended_well):
                made = self._begin(path, stream, method)
                request = await self._only_request(made)
                long = method.long(request) if callable(method.long) else method.long
                limit = self._streams if long else self._unary_calls
                if method.whole or (self._whole and not long):
                    answer = await asyncio.shield(self._going_on.run(self._answered(method, made, request, limit)))
                else:
                    answer = await self._answered(method, made, request, limit)
                if not stream.answer_now(answer):  # a call whose caller takes no answer is held as streams are
                    with self._streams.one(made.visitor.who):
                        await stream.answer(answer)

        return call

    async def _answered(self, method: Method, made: Call, request: Any, limit: Concurrency) -> bytes:
        with limit.one(made.visitor.who):
            return _serialize(await method.handler(made, request))  # type: ignore[misc]

    def _streaming(self, path: str, method: Method) -> Handler:
        ended_well = CALLS.labels(path, "OK")

        async def call(stream: Stream) -> None:
            with _Ending(self, path, stream, ended_well):
                made = self._begin(path, stream, method)
                request = None if method.kind == "bidi" else await self._only_request(made)
                with self._streams.one(made.visitor.who):
                    answers: Any = method.handler(made, request)
                    async with aclosing(answers):
                        async for answer in answers:
                            await stream.send(_serialize(answer))
                stream.end()

        return call

    def _begin(self, path: str, stream: Stream, method: Method) -> Call:
        if self._header and stream.head.values(_HEADER) != [b"true"]:
            raise InvalidInput("security header missing from request")
        if isinstance(stream.visitor, Peer):
            stream.visitor.check_not_confined()
        if self._check is not None:
            self._check(stream.visitor)
        return Call(stream.visitor, path, Requests(stream, method.request), stream.send_now)

    async def _only_request(self, call: Call) -> Any:
        with self._silent.one(call.visitor.who) if call.requests.waiting else nullcontext():
            return await first_of(call, REQUEST_SECONDS)

    def fail(self, path: str, stream: Stream, error: Exception, begun: float) -> None:
        """Answer first: whatever becomes of log and journal, the caller does not wait for ever."""
        status = GrpcStatus.of(error)
        stream.fail(status.number, status.message, status.metadata())
        CALLS.labels(path, status.name).inc()
        by, said = stream.visitor, {"method": path, "code": status.code, "reason": status.message}
        took = round((monotonic() - begun) * 1000, 3)
        if not isinstance(error, SojournError):
            log.error(
                "call_failed",
                method=path,
                door=self._door,
                duration_ms=took,
                reference=status.reference,
                exc_info=error,
            )
        elif self._refusals.allow(by.who):
            who = {**named(by.who), **by.details}
            log.info(
                "call_refused",
                method=path,
                code=status.code,
                reason=status.message,
                door=self._door,
                duration_ms=took,
                detail=error.detail or None,
                **who,
            )
        if isinstance(error, Refused | PersonRefused):
            self._audit.denied("call_denied", by.who, **by.details, **said)


def _traced(handler: Handler) -> Handler:
    """A handler whose calls are of the trace that their metadata name."""

    async def call(stream: Stream) -> None:
        values = stream.head.values(_TRACEPARENT)
        if not values:
            await handler(stream)
            return
        with trace.following(values):
            await handler(stream)

    return call


class _Ending:
    """How a call ends: counted by its status, which every error becomes. One that is given up goes on being so."""

    __slots__ = ("_begun", "_calls", "_path", "_stream", "_well")

    def __init__(self, calls: Calls, path: str, stream: Stream, well: Metric) -> None:
        self._begun = monotonic()
        self._calls = calls
        self._path = path
        self._stream = stream
        self._well = well

    def __enter__(self) -> None:
        """Nothing is counted before the end."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if error is None:
            self._well.inc()
        elif isinstance(error, asyncio.CancelledError):
            CALLS.labels(self._path, _GIVEN_UP).inc()
        elif isinstance(error, Exception):
            self._calls.fail(self._path, self._stream, error, self._begun)
            return True
        return False


def _serialize(answer: Message | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


async def next_of(requests: Requests) -> Any:
    """The next request of a stream, or None if the caller has no more."""
    with suppress(StopAsyncIteration):
        return await anext(requests)
    return None


async def first_of(call: Call, deadline_seconds: float) -> Any:
    """The first request of a call. Raise InvalidInput if none comes."""
    try:
        if not call.requests.waiting:
            return await anext(call.requests)
        async with asyncio.timeout(deadline_seconds):
            return await anext(call.requests)
    except (TimeoutError, StopAsyncIteration):
        raise InvalidInput("the call ended or stayed silent before its first request") from None
