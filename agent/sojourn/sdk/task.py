"""A task as its holder sees it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.errors import SojournError, TaskOver, Unavailable
from sojourn.sdk.connection import Connection, read
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.grants import Grant

LIVING = frozenset({"pending", "active", "suspended"})
LOST = "lost"  # our own state: the agent is gone, and with it the task
_FAREWELL_SECONDS = 2.0  # the stream's end ends the task anyway


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token of a task (RFC 9068). `token` is a bearer credential: the repr hides it."""

    token: str
    resource: str
    actions: tuple[str, ...]
    expires_at: datetime

    @property
    def header(self) -> str:
        """The value of an `Authorization` header (RFC 6750, 2.1)."""
        return f"Bearer {self.token}"

    def __repr__(self) -> str:
        return f"AccessToken({self.resource}, {list(self.actions)}, exp={self.expires_at.isoformat()})"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What the agent last said of a task. `reason` says why it ended, and is empty while it lives."""

    id: str
    type: str
    spiffe_id: SpiffeId
    state: str
    reason: str
    version: int
    grants: tuple[Grant, ...]
    created_at: datetime
    expires_at: datetime
    params: Mapping[str, str]

    @classmethod
    def of(cls, message: tasks_pb2.Task) -> "TaskStatus":
        """Parse a Task message. Raise InvalidInput."""
        return cls(
            id=message.id,
            type=message.type,
            spiffe_id=SpiffeId.parse(message.spiffe_id),
            state=message.state,
            reason=message.reason,
            version=message.version,
            grants=tuple(Grant.parse(grant.resource, grant.actions) for grant in message.grants),
            created_at=datetime.fromtimestamp(message.created_at, UTC),
            expires_at=datetime.fromtimestamp(message.expires_at, UTC),
            params=dict(message.params),
        )


class TaskView:
    """A task's present status, read only. Shared by the two kinds of client."""

    @property
    def status(self) -> TaskStatus:
        raise NotImplementedError

    @property
    def id(self) -> str:
        return self.status.id

    @property
    def type(self) -> str:
        return self.status.type

    @property
    def spiffe_id(self) -> SpiffeId:
        return self.status.spiffe_id

    @property
    def grants(self) -> tuple[Grant, ...]:
        return self.status.grants

    @property
    def expires_at(self) -> datetime:
        return self.status.expires_at

    @property
    def state(self) -> str:
        """pending, active, suspended, completed, revoked, expired or cascaded; or lost: the agent is gone."""
        return self.status.state

    @property
    def reason(self) -> str:
        return self.status.reason

    @property
    def ended(self) -> bool:
        return self.status.state not in LIVING

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}, {self.type}, {self.state})"


class TaskCalls(Protocol):
    """What a task asks of its client."""

    async def get_token(self, task_id: str, resource: str = "", actions: Sequence[str] = ()) -> AccessToken: ...
    async def narrow_task(self, task_id: str, kept: Iterable[Grant]) -> TaskStatus: ...
    async def complete_task(self, task_id: str, *, failed: bool = False) -> TaskStatus: ...


class HeldTask(TaskView):
    """A task that lives as long as a process (`Client.begin_task`). Its status is that of the last call."""

    def __init__(self, calls: TaskCalls, status: TaskStatus) -> None:
        self._calls = calls
        self._status = status

    @property
    def status(self) -> TaskStatus:
        return self._status

    async def token(self, resource: str = "", actions: Sequence[str] = ()) -> AccessToken:
        """Get an access token for one resource: empty, if the task has just one; no actions: all that it may do there.

        Raise TaskOver if the task is not active, and Refused if it has no such grant.
        """
        if self.ended:
            raise TaskOver(f"task is {self.state}: {self.reason or 'no reason given'}")
        return await self._calls.get_token(self.id, resource, actions)

    async def narrow(self, kept: Iterable[Grant]) -> None:
        """Give up all but these grants, which the task must have. It cannot be undone; tokens from before are dead."""
        self._status = await self._calls.narrow_task(self.id, kept)

    async def complete(self, *, failed: bool = False) -> None:
        """End the task. Doing it twice changes nothing."""
        if not self.ended:
            self._status = await self._calls.complete_task(self.id, failed=failed)


class Task(HeldTask):
    """A task that lives as long as its block (`Client.task`). Its status is kept up to date."""

    def __init__(self, calls: TaskCalls, status: TaskStatus, outcome: asyncio.Future[bool]) -> None:
        super().__init__(calls, status)
        self._outcome = outcome  # what its holder says of it: whether it failed
        self._over = asyncio.Event()

    async def complete(self, *, failed: bool = False) -> None:
        """End the task and wait until the agent says so, two seconds at most: then raise Unavailable."""
        if not self._outcome.done():
            self._outcome.set_result(failed)
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._over.wait()
        except TimeoutError as error:
            raise Unavailable("agent did not confirm the end of the task; it ends with its stream") from error

    async def wait_ended(self) -> None:
        """Return when the task has ended, for whatever reason; `state` and `reason` say it."""
        await self._over.wait()

    async def follow(self, call: Any, path: str) -> None:
        """Take events until the task or its stream has ended. For `run_task` only."""
        try:
            while not self.ended:
                event = await read(call, path)
                self._status = TaskStatus.of(getattr(event, event.WhichOneof("event") or "changed"))
        except SojournError as error:
            self._status = replace(self._status, state=LOST, reason=error.public)
        finally:
            self._over.set()


@asynccontextmanager
async def run_task(connection: Connection, calls: TaskCalls, begin: tasks_pb2.BeginTaskRequest) -> AsyncIterator[Task]:
    """Begin a task on a stream of its own, and end it with the block: as failed, if an exception leaves it."""
    outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    call = connection.duplex("/sojourn.v1.Tasks/RunTask", _requests(begin, outcome), tasks_pb2.TaskEvent)
    try:
        task = Task(calls, await _begun(connection, call), outcome)
        follower = asyncio.create_task(task.follow(call, connection.path))
        try:
            async with _farewell(task):
                yield task
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)
    finally:
        call.cancel()
        outcome.cancel()


async def _requests(
    begin: tasks_pb2.BeginTaskRequest, outcome: asyncio.Future[bool]
) -> AsyncIterator[tasks_pb2.RunTaskRequest]:
    yield tasks_pb2.RunTaskRequest(begin=begin)
    yield tasks_pb2.RunTaskRequest(complete=tasks_pb2.Complete(failed=await outcome))


async def _begun(connection: Connection, call: Any) -> TaskStatus:
    try:
        async with asyncio.timeout(connection.deadline_seconds):
            event = await read(call, connection.path)
    except TimeoutError as error:
        raise Unavailable(f"agent did not begin the task within {connection.deadline_seconds:g} seconds") from error
    if event.WhichOneof("event") != "begun":
        raise Unavailable("agent did not say that the task has begun")
    return TaskStatus.of(event.begun)


@asynccontextmanager
async def _farewell(task: Task) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        with suppress(SojournError):  # the exception of the block is the one to be seen
            await task.complete(failed=True)
        raise
    with suppress(Unavailable):
        await task.complete()
