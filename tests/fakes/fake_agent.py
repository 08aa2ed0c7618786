"""A real gRPC server on a real Unix socket, whose answers the test sets."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from fakes.ca import FakeCa
from sojourn._pb import workload_pb2
from sojourn._pb.sojourn.v1 import admin_pb2, tasks_pb2, validation_pb2
from sojourn.spiffe.x509svid import X509Svid


class Fail(Exception):
    """An answer that is a gRPC status."""

    def __init__(self, status: grpc.StatusCode, details: str = "", code: str = "") -> None:
        super().__init__(details)
        self.status, self.details, self.code = status, details, code


class ScriptedAgent:
    """Answers by method name.

    `answers[method]` is a message or a Fail, for methods with one answer, or a function from the request to one. `push(method, …)` sends a message, a Fail or
    None (the stream's end) on the open stream of a method, or on the next one to open. `answers["complete"]` is the
    event by which a task ends that its holder completes.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[tuple[str, Any]] = []
        self.metadata: list[Any] = []
        self.task_commands: asyncio.Queue[Any] = asyncio.Queue()
        self._pushed: dict[str, asyncio.Queue[Any]] = {}

    def push(self, method: str, *messages: Any) -> None:
        for message in messages:
            self._queue(method).put_nowait(message)

    def _queue(self, method: str) -> asyncio.Queue[Any]:
        return self._pushed.setdefault(method, asyncio.Queue())

    async def _unary(self, method: str, request: Any, context: Any) -> Any:
        self._note(method, request, context)
        answer = self.answers.get(method, Fail(grpc.StatusCode.UNIMPLEMENTED, "no answer set"))
        if inspect.isfunction(answer) or inspect.ismethod(answer):
            answer = answer(request)
        if isinstance(answer, Fail):
            await _fail(context, answer)
        return answer

    async def _stream(self, method: str, request: Any, context: Any) -> AsyncIterator[Any]:
        self._note(method, request, context)
        async for message in self._messages(method, context):
            yield message

    async def _run_task(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        self.metadata.append(dict(context.invocation_metadata()))
        self.requests.append(("RunTask", await anext(requests)))

        async def take() -> None:
            async for request in requests:
                self.task_commands.put_nowait(request)
                if "complete" in self.answers:
                    self.push("RunTask", self.answers["complete"], None)

        taker = asyncio.create_task(take())
        try:
            async for message in self._messages("RunTask", context):
                yield message
        finally:
            taker.cancel()
            await asyncio.gather(taker, return_exceptions=True)

    async def _messages(self, method: str, context: Any) -> AsyncIterator[Any]:
        while True:
            message = await self._queue(method).get()
            if message is None:
                return
            if isinstance(message, Fail):
                await _fail(context, message)
            yield message

    def _note(self, method: str, request: Any, context: Any) -> None:
        self.requests.append((method, request))
        self.metadata.append(dict(context.invocation_metadata()))

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        w, t, v, a = workload_pb2, tasks_pb2, validation_pb2, admin_pb2
        services = {
            "SpiffeWorkloadAPI": {
                "FetchX509SVID": self._streamed("FetchX509SVID", w.X509SVIDRequest),
                "FetchX509Bundles": self._streamed("FetchX509Bundles", w.X509BundlesRequest),
                "FetchJWTBundles": self._streamed("FetchJWTBundles", w.JWTBundlesRequest),
                "FetchJWTSVID": self._one("FetchJWTSVID", w.JWTSVIDRequest),
                "ValidateJWTSVID": self._one("ValidateJWTSVID", w.ValidateJWTSVIDRequest),
            },
            "sojourn.v1.Tasks": {
                "RunTask": grpc.stream_stream_rpc_method_handler(
                    self._run_task, t.RunTaskRequest.FromString, t.TaskEvent.SerializeToString
                ),
                "BeginTask": self._one("BeginTask", t.BeginTaskRequest),
                "AttachTask": self._one("AttachTask", t.AttachTaskRequest),
                "GetToken": self._one("GetToken", t.GetTokenRequest),
                "CreateProof": self._one("CreateProof", t.CreateProofRequest),
                "CompleteTask": self._one("CompleteTask", t.CompleteTaskRequest),
                "WaitTask": self._one("WaitTask", t.WaitTaskRequest),
            },
            "sojourn.v1.Admin": {
                "ListReviews": self._one("ListReviews", a.ListReviewsRequest),
                "ListReviewItems": self._one("ListReviewItems", a.ListReviewItemsRequest),
                "UnsetFact": self._one("UnsetFact", a.UnsetFactRequest),
                "ReadAudit": self._streamed("ReadAudit", a.ReadAuditRequest),
            },
            "sojourn.v1.Validation": {
                "ValidateToken": self._one("ValidateToken", v.ValidateTokenRequest),
                "ReportUse": self._one("ReportUse", v.ReportUseRequest),
                "ReportRefusals": self._one("ReportRefusals", v.ReportRefusalsRequest),
                "WatchTasks": self._streamed("WatchTasks", v.WatchTasksRequest),
            },
        }
        return tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items())

    def _one(self, method: str, request: Any) -> Any:
        async def handle(message: Any, context: Any) -> Any:
            return await self._unary(method, message, context)

        return grpc.unary_unary_rpc_method_handler(handle, request.FromString, _serialize)

    def _streamed(self, method: str, request: Any) -> Any:
        async def handle(message: Any, context: Any) -> AsyncIterator[Any]:
            async for answer in self._stream(method, message, context):
                yield answer

        return grpc.unary_stream_rpc_method_handler(handle, request.FromString, _serialize)

    @asynccontextmanager
    async def serve(self, path: Path) -> AsyncIterator["ScriptedAgent"]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(self.handlers())
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)


def x509_response(
    ca: FakeCa, *svids: X509Svid, hint: str = "", federated: tuple[FakeCa, ...] = (), crl: tuple[bytes, ...] = ()
) -> workload_pb2.X509SVIDResponse:
    """The answer of FetchX509SVID for some SVIDs of one CA."""
    messages = [
        workload_pb2.X509SVID(
            spiffe_id=str(svid.spiffe_id),
            x509_svid=svid.chain_der,
            x509_svid_key=svid.key_der,
            bundle=ca.root_der,
            hint=hint,
        )
        for svid in svids
    ]
    bundles = {str(other.trust_domain.id): other.root_der for other in federated}
    return workload_pb2.X509SVIDResponse(svids=messages, federated_bundles=bundles, crl=crl)


async def _fail(context: Any, failure: Fail) -> None:
    trailing = (("sojourn-code", failure.code),) if failure.code else ()
    await context.abort(failure.status, failure.details, trailing)


def _serialize(message: Any) -> bytes:
    return message.SerializeToString()
