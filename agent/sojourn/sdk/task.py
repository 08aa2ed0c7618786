"""A task as its holder sees it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.errors import ApprovalDenied, ApprovalExpired, NotFound, SojournError, TaskOver, Unavailable, Unreachable
from sojourn.sdk.connection import Connection
from sojourn.sdk.taskstream import TaskStream
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.grants import Grant
from sojourn.tasks.reasons import APPROVAL_DENIED, APPROVAL_EXPIRED

PENDING = "pending"
LIVING = frozenset({PENDING, "active", "suspended"})
LOST = "lost"  # our own state: the agent is gone and did not give the task back
_FAREWELL_SECONDS = 2.0  # the stream's end ends the task anyway
_NOTICE_SECONDS = 1.0  # a call that finds no agent waits so long for the stream to notice it too
Answer = TypeVar("Answer")


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
class DelegationTicket:
    """What another workload begins its part of a task with. `ticket` is a credential: the repr hides it."""

    ticket: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"DelegationTicket(exp={self.expires_at.isoformat()})"


@dataclass(frozen=True, slots=True)
class ApprovalStatus:
    """What a task waits, or waited, for: `needed` of the `approvers` must agree, and `given` have.

    `digest` is that of what is asked for; `denial` are the words of whoever said no.
    """

    id: str
    expires_at: datetime
    digest: str
    approvers: tuple[str, ...]
    needed: int
    given: int
    denial: str

    @classmethod
    def of(cls, message: tasks_pb2.TaskApproval) -> "ApprovalStatus":
        return cls(
            id=message.approval_id,
            expires_at=datetime.fromtimestamp(message.expires_at, UTC),
            digest=message.digest,
            approvers=tuple(message.approvers),
            needed=message.needed,
            given=message.given,
            denial=message.denial,
        )


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
    parent_id: str = ""  # the task that handed it on
    actors: tuple[SpiffeId, ...] = ()  # who acts for the first task's workload, this one's first; none: nobody does
    approval: ApprovalStatus | None = None  # None: nobody had to agree

    @property
    def pending(self) -> bool:
        """Whether it waits for someone to agree."""
        return self.state == PENDING

    def check_begun(self) -> None:
        """Raise ApprovalDenied, ApprovalExpired or TaskOver if the task was over before it began."""
        if self.reason == APPROVAL_DENIED:
            said = self.approval.denial if self.approval is not None else ""
            raise ApprovalDenied(f"the task was not approved: {said or 'no reason given'}")
        if self.reason == APPROVAL_EXPIRED:
            raise ApprovalExpired("the task was not approved in time")
        if self.state not in LIVING:
            raise TaskOver(f"the task is over: {self.state}, {self.reason}")

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
            parent_id=message.parent_id,
            actors=tuple(SpiffeId.parse(each) for each in message.actors),
            approval=ApprovalStatus.of(message.approval) if message.HasField("approval") else None,
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
    async def delegate_task(
        self, task_id: str, to: SpiffeId | str, grants: Iterable[Grant] | None = None, max_seconds: int = 0
    ) -> DelegationTicket: ...
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

    async def delegate(
        self, *, to: SpiffeId | str, grants: Iterable[Grant] | None = None, max_seconds: int = 0
    ) -> DelegationTicket:
        """Hand a part of the task on to the workload `to`: give it the ticket, and it begins a task of its own by it.

        No `grants`: all of the task's. The ticket is good once, for a minute at most; what it begins ends with this
        task. Raise TaskOver if the task is not active, and Refused if its type does not let it be handed on so.
        """
        return await self._calls.delegate_task(self.id, to, grants, max_seconds)

    async def complete(self, *, failed: bool = False) -> None:
        """End the task. Doing it twice changes nothing."""
        if not self.ended:
            self._status = await self._calls.complete_task(self.id, failed=failed)


class Task(HeldTask):
    """A task that lives as long as its block (`Client.task`). Its status is kept up to date.

    When the agent restarts the task is had back from it; what is asked of the task meanwhile waits.
    """

    def __init__(self, calls: TaskCalls, status: TaskStatus, stream: TaskStream) -> None:
        super().__init__(calls, status)
        self._stream = stream
        self._broken = asyncio.Event()  # of the present stream: that it is no more
        self._settled = asyncio.Event()  # the task has its stream, or is over
        self._settled.set()
        self._over = asyncio.Event()

    async def token(self, resource: str = "", actions: Sequence[str] = ()) -> AccessToken:
        """See HeldTask.token."""
        ask = super().token
        return await self._over_restarts(lambda: ask(resource, actions))

    async def narrow(self, kept: Iterable[Grant]) -> None:
        """See HeldTask.narrow."""
        ask, grants = super().narrow, tuple(kept)
        await self._over_restarts(lambda: ask(grants))

    async def delegate(
        self, *, to: SpiffeId | str, grants: Iterable[Grant] | None = None, max_seconds: int = 0
    ) -> DelegationTicket:
        """See HeldTask.delegate."""
        ask, part = super().delegate, None if grants is None else tuple(grants)
        return await self._over_restarts(lambda: ask(to=to, grants=part, max_seconds=max_seconds))

    async def complete(self, *, failed: bool = False) -> None:
        """End the task and wait until the agent says so, two seconds at most: then raise Unavailable."""
        self._stream.complete(failed=failed)
        while not self._over.is_set():
            await self._settled.wait()
            try:
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await self._over.wait()
            except TimeoutError as error:
                if self._settled.is_set():
                    raise Unavailable("agent did not confirm the end of the task; it ends with its stream") from error

    async def wait_ended(self) -> None:
        """Return when the task has ended, for whatever reason; `state` and `reason` say it."""
        await self._over.wait()

    async def follow(self) -> None:
        """Take events until the task has ended or is lost. For `run_task` only."""
        try:
            while not self.ended:
                try:
                    self._status = TaskStatus.of(await self._stream.next())
                except (Unavailable, Unreachable):
                    await self._reattach()
        except SojournError as error:
            self._status = replace(self._status, state=LOST, reason=error.public)
        finally:
            self._over.set()
            self._settled.set()

    async def _reattach(self) -> None:
        self._settled.clear()
        self._broken.set()
        self._status = TaskStatus.of(await self._stream.attach(self.id))
        self._broken = asyncio.Event()
        self._settled.set()

    async def _over_restarts(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask, and again if that failed because the agent restarted."""
        while True:
            await self._settled.wait()
            broken = self._broken
            try:
                return await ask()
            except (TaskOver, NotFound, Unavailable, Unreachable) as error:
                if self.ended:
                    raise
                if not broken.is_set() and error.remote_code in {"", Unavailable.code}:
                    with suppress(TimeoutError):  # the call may hear of it before the stream does
                        async with asyncio.timeout(_NOTICE_SECONDS):
                            await broken.wait()
                if not broken.is_set():
                    raise


OnPending = Callable[[TaskStatus], None]


async def until_begun(
    status: TaskStatus,
    wait: Callable[[], Awaitable[TaskStatus]],
    seconds: float | None,
    on_pending: OnPending | None,
) -> TaskStatus:
    """Return the task once it is pending no more, for which `wait` waits a while.

    `on_pending` hears of it while it is. Raise ApprovalDenied, ApprovalExpired (also after `seconds`), or TaskOver.
    """
    heard: TaskStatus | None = None
    try:
        async with asyncio.timeout(seconds):
            while status.pending:
                if on_pending is not None and status != heard:
                    on_pending(status)
                heard, status = status, await wait()
    except TimeoutError as error:
        raise ApprovalExpired(f"the task was not approved within {seconds:g} seconds") from error
    status.check_begun()
    return status


@asynccontextmanager
async def run_task(
    connection: Connection,
    calls: TaskCalls,
    first: tasks_pb2.RunTaskRequest,
    patience_seconds: float,
    approve_wait: float | None = None,
    on_pending: OnPending | None = None,
) -> AsyncIterator[Task]:
    """Begin a task by the `first` request of a stream of its own, and end it with the block: as failed, if an exception
    leaves it.
    """
    stream = TaskStream(connection, patience_seconds)
    try:
        status = TaskStatus.of(await stream.begin(first))

        async def wait() -> TaskStatus:
            return TaskStatus.of(await stream.next())

        task = Task(calls, await until_begun(status, wait, approve_wait, on_pending), stream)
        follower = asyncio.create_task(task.follow())
        try:
            async with _farewell(task):
                yield task
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)
    finally:
        stream.close()


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
