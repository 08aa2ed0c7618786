"""Between gRPC and the handlers: who calls, the security header, and errors as status codes.

Handlers raise `sojourn.errors`; only this file talks status codes. An error's stable code goes into the trailing
metadata `sojourn-code`, and the nonce that a DPoP proof needs into `dpop-nonce`.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
import structlog
from google.protobuf.message import Message
from prometheus_client import Counter as Metric

from sojourn.attestation.peer import Peer
from sojourn.doors.admission import Allowance, Concurrency
from sojourn.doors.doorway import Peers, Visitor
from sojourn.errors import Bug, InvalidInput, Refused, SojournError
from sojourn.limits import CALLS_PER_UID, REFUSALS_LOGGED_PER_SECOND, REQUEST_SECONDS, STREAMS_PER_UID
from sojourn.oautherrors import NonceNeeded
from sojourn.oversight.audit import Audit, named

log = structlog.get_logger()
CALLS = Metric("sojourn_calls_total", "gRPC calls that ended, by method and status.", ["method", "code"])
Request = TypeVar("Request", bound=Message)
HEADER = "workload.spiffe.io"


@dataclass(frozen=True, slots=True)
class Call:
    """One call: who makes it, and what it is."""

    visitor: Visitor
    method: str
    requests: AsyncIterator[Any]

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
    Whether it is may depend on the request.
    """

    kind: str  # unary | stream (answers) | bidi
    request: type[Message]
    handler: Unary | Streaming
    long: bool | Callable[[Any], bool] = False


class Calls:
    """Makes gRPC handlers of ours."""

    def __init__(
        self,
        peers: Peers,
        audit: Audit,
        *,
        header: bool,
        streams: int = STREAMS_PER_UID,
        check: Callable[[Visitor], None] | None = None,
    ) -> None:
        """`header`: whether every call must carry the metadata `workload.spiffe.io: true` (Workload Endpoint, 3).

        `streams`: how many streams one caller may hold. `check` raises what a caller's call is refused with.
        """
        self._check = check
        self._peers = peers
        self._audit = audit
        self._header = header
        self._unary_calls = Concurrency(CALLS_PER_UID, "calls under way")
        self._streams = Concurrency(streams, "open streams")
        self._silent = Concurrency(streams, "calls without a request")
        self._refusals = Allowance(REFUSALS_LOGGED_PER_SECOND)

    def service(self, name: str, methods: dict[str, Method]) -> grpc.GenericRpcHandler:
        handlers = {short: self._handler(f"{name}/{short}", method) for short, method in methods.items()}
        return grpc.method_handlers_generic_handler(name, handlers)

    def _handler(self, path: str, method: Method) -> "grpc.RpcMethodHandler[Any, Any]":
        # A single request is read as a stream's first. gRPC would wait for it without end and without telling us: calls
        # that begin and say no more would be held in any number.
        made = (
            grpc.stream_unary_rpc_method_handler(
                self._unary(path, method),
                request_deserializer=_parser(method.request),
                response_serializer=_serialize,
            )
            if method.kind == "unary"
            else grpc.stream_stream_rpc_method_handler(
                self._streaming(path, method),
                request_deserializer=_parser(method.request),
                response_serializer=_serialize,
            )
        )
        return cast("grpc.RpcMethodHandler[Any, Any]", made)

    def _unary(self, path: str, method: Method) -> Callable[..., Awaitable[Any]]:
        async def call(requests: AsyncIterator[Any], context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
            try:
                made = self._begin(path, context, _each(requests))
                request = await self._only_request(made)
                long = method.long(request) if callable(method.long) else method.long
                limit = self._streams if long else self._unary_calls
                with limit.one(made.visitor.who), self._peers.call():
                    answer = await method.handler(made, request)  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001  # every error becomes a status
                await self._abort(path, context, error)
            CALLS.labels(path, "OK").inc()
            return answer

        return call

    def _streaming(self, path: str, method: Method) -> Callable[..., AsyncIterator[Any]]:
        async def call(
            requests: AsyncIterator[Any], context: "grpc.aio.ServicerContext[Any, Any]"
        ) -> AsyncIterator[Any]:
            try:
                made = self._begin(path, context, _each(requests))
                request = None if method.kind == "bidi" else await self._only_request(made)
                with self._streams.one(made.visitor.who):
                    answers = method.handler(made, request)
                    async for answer in answers:  # type: ignore[union-attr]
                        yield answer
            except Exception as error:  # noqa: BLE001  # every error becomes a status
                await self._abort(path, context, error)
            CALLS.labels(path, "OK").inc()

        return call

    def _begin(self, path: str, context: "grpc.aio.ServicerContext[Any, Any]", requests: AsyncIterator[Any]) -> Call:
        if self._header:
            values = [value for name, value in context.invocation_metadata() or () if name == HEADER]
            if values != ["true"]:
                raise InvalidInput("security header missing from request")
        visitor = self._peers.of_call(context.peer())
        if self._check is not None:
            self._check(visitor)
        return Call(visitor, path, requests)

    async def _only_request(self, call: Call) -> Any:
        with self._silent.one(call.visitor.who):
            return await first_of(call, REQUEST_SECONDS)

    async def _abort(self, path: str, context: "grpc.aio.ServicerContext[Any, Any]", error: Exception) -> None:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if not isinstance(error, SojournError):
            reference = uuid.uuid4().hex[:12]
            log.error("call_failed", method=path, reference=reference, exc_info=error)
            code, text, ours = "INTERNAL", f"internal error; the log has it under {reference}", "internal"
        else:
            code, text, ours = error.grpc_status, error.public, error.code
            by = self._by(context)
            said = {} if by is None else {**named(by.who), **by.details}
            if self._refusals.allow(-1 if by is None else by.who):
                log.info("call_refused", method=path, code=ours, reason=text, detail=error.detail or None, **said)
            if isinstance(error, Refused) and by is not None:
                self._audit.denied("call_denied", by.who, **by.details, method=path, code=ours, reason=text)
        CALLS.labels(path, code).inc()
        said_too = [("sojourn-code", ours), *([("dpop-nonce", error.nonce)] if isinstance(error, NonceNeeded) else [])]
        await context.abort(grpc.StatusCode[code], text, trailing_metadata=tuple(said_too))

    def _by(self, context: "grpc.aio.ServicerContext[Any, Any]") -> Visitor | None:
        """Who makes a call, or None if its connection is gone or is none of ours."""
        try:
            return self._peers.of_call(context.peer())
        except SojournError:
            return None


class _Malformed:
    """Stands for a request that could not be parsed: parsing must not raise inside gRPC, which would say INTERNAL."""


def _parser(kind: type[Message]) -> Callable[[bytes], Message | _Malformed]:
    def parse(data: bytes) -> Message | _Malformed:
        try:
            return kind.FromString(data)
        except Exception:  # noqa: BLE001  # hostile input: whatever the library raises
            return _Malformed()

    return parse


def _parsed(request: Any) -> Any:
    if isinstance(request, _Malformed):
        raise InvalidInput("request is not a message of the method's type")
    return request


async def _each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _parsed(request)


def _serialize(answer: Message | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


async def next_of(requests: AsyncIterator[Any]) -> Any:
    """The next request of a stream, or None if the caller has no more."""
    with suppress(StopAsyncIteration):
        return await anext(requests)
    return None


async def first_of(call: Call, deadline_seconds: float) -> Any:
    """The first request of a call. Raise InvalidInput if none comes."""
    try:
        async with asyncio.timeout(deadline_seconds):
            return await anext(call.requests)
    except (TimeoutError, StopAsyncIteration):
        raise InvalidInput("the call ended or stayed silent before its first request") from None
