"""Plain gRPC on an agent's socket, without the SDK: for what the SDK never sends."""

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from sojourn._pb.sojourn.v1 import tasks_pb2, validation_pb2

METADATA = (("workload.spiffe.io", "true"),)
SECONDS = 15.0


@contextlib.contextmanager
def channel(socket: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)]) as opened:
        yield opened


def unary(socket: str, method: str, request: Any, answer: type[Any]) -> Any:
    """Make one call. Raise grpc.RpcError."""
    with channel(socket) as opened:
        call = opened.unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        return call(request, metadata=METADATA, timeout=SECONDS)


def pages(socket: str, method: str, request: Any, answer: type[Any]) -> Iterator[Any]:
    """Make a call that is answered in pages, and return all answers. Raise grpc.RpcError."""
    while True:
        page = unary(socket, method, request, answer)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def refusal(socket: str, method: str, request: Any, answer: type[Any]) -> tuple[str, str]:
    """Make one call that must fail; return the status' name and the sentence."""
    try:
        unary(socket, method, request, answer)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    raise AssertionError(f"{method} was not refused")


class TaskStream:
    """A RunTask stream, request by request."""

    def __init__(self, socket: str) -> None:
        self._context = channel(socket)
        self._requests: queue.Queue[Any] = queue.Queue()
        opened = self._context.__enter__()
        self.call = opened.stream_stream(
            "/sojourn.v1.Tasks/RunTask",
            request_serializer=tasks_pb2.RunTaskRequest.SerializeToString,
            response_deserializer=tasks_pb2.TaskEvent.FromString,
        )(iter(self._requests.get, None), metadata=METADATA, timeout=60)

    def send(self, **command: Any) -> None:
        self._requests.put(tasks_pb2.RunTaskRequest(**command))

    def half_close(self) -> None:
        self._requests.put(None)

    def hear(self) -> Any:
        return next(self.call)

    def refusal(self) -> tuple[str, str]:
        try:
            heard = next(self.call)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        raise AssertionError(f"the stream was not refused: {heard}")

    def close(self) -> None:
        self.call.cancel()
        self._requests.put(None)
        self._context.__exit__(None, None, None)

    def __enter__(self) -> "TaskStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Feed:
    """A WatchTasks stream. `hear` returns its messages one by one, `delta` the next word on one task."""

    def __init__(self, socket: str, audiences: Iterable[str]) -> None:
        self._context = channel(socket)
        opened = self._context.__enter__()
        self._call = opened.unary_stream(
            "/sojourn.v1.Validation/WatchTasks",
            request_serializer=validation_pb2.WatchTasksRequest.SerializeToString,
            response_deserializer=validation_pb2.TaskFeed.FromString,
        )(validation_pb2.WatchTasksRequest(audiences=list(audiences)), metadata=METADATA, timeout=60)
        self._follow()

    def _follow(self) -> None:
        self._heard: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for message in self._call:
                self._heard.put(message)
        except grpc.RpcError as error:
            self._heard.put(error)

    def hear(self, kind: str | None = None) -> Any:
        """The next message, or the next of that kind. Raise grpc.RpcError when the stream has ended."""
        while True:
            try:
                message = self._heard.get(timeout=SECONDS)
            except queue.Empty:
                raise AssertionError(f"the feed said nothing, waiting for {kind or 'anything'}") from None
            if isinstance(message, grpc.RpcError):
                raise message
            if kind is None or message.WhichOneof("message") == kind:
                return message

    def delta(self, task_id: str, *, live: bool) -> Any:
        """The next delta that says of this task that it lives, or that it has ended (not: that it is suspended)."""
        while True:
            for state in self.hear("delta").delta.tasks:
                if state.id == task_id and state.live == live and not state.reason.startswith("suspended"):
                    return state

    def heard_of(self, task_id: str) -> list[Any]:
        """Every word on one task in what has arrived by now."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                message = self._heard.get_nowait()
                found += [state for state in message.delta.tasks if state.id == task_id]
        return found

    def end(self) -> tuple[str, str]:
        """How the stream ends: the status' name and the sentence."""
        try:
            while True:
                self.hear()
        except grpc.RpcError as error:
            return error.code().name, error.details()

    def close(self) -> None:
        self._call.cancel()
        self._thread.join(timeout=SECONDS)
        self._context.__exit__(None, None, None)

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
