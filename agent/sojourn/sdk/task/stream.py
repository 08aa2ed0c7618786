"""The stream that a task is: begun, and had again when the agent has restarted."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.errors import LimitExceeded, Unavailable, Unreachable
from sojourn.sdk.client.connection import AgentConnection, read
from sojourn.sdk.client.grpc_status import never_sent

_RUN_TASK: Final = "/sojourn.v1.Tasks/RunTask"
_RETRY_SECONDS: Final = 0.1
_TRIES: Final = 5  # of a call whose first request never went out


class TaskStream:
    """One RunTask stream at a time. `close` it; if the agent is there, the task ends with it."""

    def __init__(self, connection: AgentConnection, patience_seconds: float) -> None:
        """`patience_seconds`: how long `attach` waits for an agent that has gone."""
        self._connection = connection
        self._patience_seconds = patience_seconds
        self._outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._call: Any = None
        self.warned = False  # whether the last event said that the token of the task's person ends soon

    async def begin(self, first: tasks_pb2.RunTaskRequest) -> tasks_pb2.Task:
        """Begin a task; it may be pending. Raise a SojournError if there is none."""
        connection = self._connection
        return await connection.taken(
            lambda seconds: self._open(first, seconds, "begun", "pending"), connection.deadline_seconds
        )

    async def attach(self, task_id: str) -> tasks_pb2.Task:
        """Have the task back from the agent once it has restarted, trying for as long as there is patience.

        Raise the last failure when that is over, and at once a SojournError that says no.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._patience_seconds
        first = tasks_pb2.RunTaskRequest(attach=tasks_pb2.Attach(task_id=task_id))
        while True:
            try:
                return await self._open(first, self._connection.deadline_seconds, "attached")
            except (Unavailable, Unreachable, LimitExceeded):
                if loop.time() >= ends:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

    async def next(self) -> tasks_pb2.Task:
        """The task when it has changed next. Raise a SojournError when the stream ends."""
        event = await read(self._call, self._connection)
        kind = event.WhichOneof("event") or "changed"
        self.warned = kind == "person_expires"
        task: tasks_pb2.Task = getattr(event, kind)
        return task

    def complete(self, *, failed: bool) -> None:
        """Say what became of the task; only the first word counts."""
        if not self._outcome.done():
            self._outcome.set_result(failed)

    def close(self) -> None:
        if self._call is not None:
            self._call.cancel()
        self._outcome.cancel()

    async def _open(self, first: tasks_pb2.RunTaskRequest, seconds: float, *expected: str) -> tasks_pb2.Task:
        for _ in range(_TRIES - 1):  # an agent that says no at once may be faster than the request, and is not heard
            try:
                return await self._opened(first, seconds, *expected)
            except Unavailable as error:
                if not never_sent(error):
                    raise
        return await self._opened(first, seconds, *expected)

    async def _opened(self, first: tasks_pb2.RunTaskRequest, seconds: float, *expected: str) -> tasks_pb2.Task:
        if self._call is not None:
            self._call.cancel()
        connection = self._connection
        self._call = connection.duplex(_RUN_TASK, self._requests(first), tasks_pb2.TaskEvent)
        try:
            async with asyncio.timeout(seconds):
                event = await read(self._call, connection)
        except TimeoutError as error:
            raise Unavailable(f"agent did not begin the task within {connection.deadline_seconds:g} seconds") from error
        kind = event.WhichOneof("event")
        if kind not in expected:
            raise Unavailable("agent did not say that the task has begun")
        task: tasks_pb2.Task = getattr(event, kind)
        return task

    async def _requests(self, first: tasks_pb2.RunTaskRequest) -> AsyncIterator[tasks_pb2.RunTaskRequest]:
        yield first
        # Shielded: the end of this stream must not take the word away from the next one.
        failed = await asyncio.shield(self._outcome)
        yield tasks_pb2.RunTaskRequest(complete=tasks_pb2.Complete(failed=failed))
