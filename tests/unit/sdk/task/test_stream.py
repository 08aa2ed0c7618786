"""stream.py: a task's stream is opened again where its first request never went out, and not for anything else."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.errors import NoIdentity, SojournError, Unavailable
from sojourn.sdk.client.grpc_status import translate
from sojourn.sdk.task.stream import TaskStream

NEVER_SENT = (grpc.StatusCode.INTERNAL, "Internal error from Core")
REFUSED = (grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
BROKEN = (grpc.StatusCode.UNAVAILABLE, "Socket closed")


class Calls:
    """A connection to an agent that answers its calls so, one after another; None: the task has begun."""

    deadline_seconds = 5.0

    def __init__(self, *answers: tuple[grpc.StatusCode, str] | None) -> None:
        self._answers = iter(answers)
        self.made = 0

    def duplex(self, _method: str, _requests: object, _answer: object) -> "Calls":
        self.made += 1
        return self

    async def taken(self, call: Callable[[float], Awaitable[tasks_pb2.Task]], seconds: float) -> tasks_pb2.Task:
        return await call(seconds)

    def failure(self, error: grpc.aio.AioRpcError) -> SojournError:
        return translate(error, lambda: "nobody is there")

    async def read(self) -> tasks_pb2.TaskEvent:
        answer = next(self._answers)
        if answer is None:
            return tasks_pb2.TaskEvent(begun=tasks_pb2.Task(id="tsk_1"))
        raise grpc.aio.AioRpcError(answer[0], grpc.aio.Metadata(), grpc.aio.Metadata(), details=answer[1])

    def cancel(self) -> None:
        pass


async def begin(calls: Calls) -> tasks_pb2.Task:
    stream = TaskStream(calls, 0)  # type: ignore[arg-type]
    try:
        return await stream.begin(tasks_pb2.RunTaskRequest())
    finally:
        stream.close()
        await asyncio.sleep(0)


async def test_the_answer_is_heard_at_last() -> None:
    """An agent that says no before the request goes out is asked again, and heard."""
    calls = Calls(NEVER_SENT, NEVER_SENT, REFUSED)
    with pytest.raises(NoIdentity):
        await begin(calls)
    assert 3 == calls.made


async def test_it_begins_at_last() -> None:
    """An agent that says yes when it is asked again has begun the task."""
    calls = Calls(NEVER_SENT, None)
    assert "tsk_1" == (await begin(calls)).id


async def test_not_for_ever() -> None:
    """It is asked five times, and no more."""
    calls = Calls(*[NEVER_SENT] * 9)
    with pytest.raises(Unavailable):
        await begin(calls)
    assert 5 == calls.made


@pytest.mark.parametrize("answer", [REFUSED, BROKEN])
async def test_nothing_else_is_repeated(answer: tuple[grpc.StatusCode, str]) -> None:
    """A task that may have begun is not begun again."""
    calls = Calls(answer, None)
    with pytest.raises(SojournError):
        await begin(calls)
    assert 1 == calls.made
