"""A task as its holder sees it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Protocol, TypeVar, Unpack, cast

from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.errors import ApprovalExpired, NotFound, SojournError, TaskOver, Unavailable, Unreachable
from sojourn.errors.oauth import ShuttingDown
from sojourn.sdk.client.connection import AgentConnection
from sojourn.sdk.client.validation import Agent, use_here
from sojourn.sdk.request.authorization import check_live
from sojourn.sdk.task.clients import AsyncUse
from sojourn.sdk.task.stream import TaskStream
from sojourn.sdk.task.values import AccessToken, DelegationTicket, PersonToken, TaskStatus, TaskView, TokenOptions
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Grant

LOST = "lost"  # our own state: the agent is gone and did not give the task back
_FAREWELL_SECONDS = 2.0  # the stream's end ends the task anyway
_NOTICE_SECONDS = 1.0  # a call that finds no agent waits so long for the stream to notice it too
Answer = TypeVar("Answer")


class TaskCalls(Protocol):
    """What a task asks of its client."""

    async def get_token(
        self, task_id: str, resource: str = "", actions: Sequence[str] = (), **options: Unpack[TokenOptions]
    ) -> AccessToken: ...
    async def create_proof(
        self, task_id: str, method: str, url: str, token: AccessToken | str, nonce: str | None = None
    ) -> str: ...
    async def narrow_task(self, task_id: str, kept: Iterable[Grant]) -> TaskStatus: ...
    async def delegate_task(
        self, task_id: str, to: SpiffeId | str, grants: Iterable[Grant] | None = None, max_seconds: int = 0
    ) -> DelegationTicket: ...
    async def renew_person(self, task_id: str, person: PersonToken) -> TaskStatus: ...
    async def complete_task(self, task_id: str, *, failed: bool = False) -> TaskStatus: ...
    async def note_egress(self, task_id: str, passes: Iterable[str]) -> TaskStatus: ...


class HeldTask(AsyncUse, TaskView):
    """A task that lives as long as a process (`Client.begin_task`). Its status is that of the last call."""

    def __init__(self, calls: TaskCalls, status: TaskStatus) -> None:
        self._calls = calls
        self._status = status

    @property
    def status(self) -> TaskStatus:
        return self._status

    async def token(
        self, resource: str = "", actions: Sequence[str] = (), **options: Unpack[TokenOptions]
    ) -> AccessToken:
        """Get an access token for one resource: empty, if the task has just one; no actions: all that it may do there.

        Raise TaskOver if the task is not active, Refused if it has no such grant, InvalidInput if its type gives no
        tokens with these options, and NonceNeeded if a `dpop_proof` must have that nonce.
        """
        check_live(self)
        return await self._calls.get_token(self.id, resource, actions, **options)

    async def proof(self, method: str, url: str, token: AccessToken | str, nonce: str | None = None) -> str:
        """Make the value of the header `DPoP` for one request with a token that is bound to the task's key.

        `nonce`: that the service asked for. Raise TaskOver or InvalidToken if the token is over: get another one.
        """
        check_live(self)
        return await self._calls.create_proof(self.id, method, url, token, nonce)

    async def use(self, token: AccessToken, action: str, params_digest: str = "") -> None:
        """Use a token of the task for `action` here, where no service does it: the agent counts it if it is counted.

        Raise ActionUsedUp, or InvalidToken if the token is not good for that. `params_digest`: what it was asked with.
        """
        check_live(self)
        if not token.provider:
            await use_here(cast("Agent", self._calls), token.token, token.resource, action, params_digest)

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

    async def note_egress(self, passes: Iterable[str]) -> None:
        """Have the agent record which origins a proxy of this task lets through without a token, before it does."""
        self._status = await self._calls.note_egress(self.id, passes)

    async def renew_person(self, person: PersonToken) -> None:
        """Have the task go on by a newer token of the person whom it is for, of the same session.

        Raise PersonRefused if it is none, Refused if policy denies it for the person as they are now, TaskOver.
        """
        check_live(self)
        self._status = await self._calls.renew_person(self.id, person)

    async def complete(self, *, failed: bool = False) -> None:
        """End the task. Doing it twice changes nothing."""
        if not self.ended:
            self._status = await self._calls.complete_task(self.id, failed=failed)


class Task(HeldTask):
    """A task that lives as long as its block (`Client.task`). Its status is kept up to date.

    When the agent restarts the task is had back from it; what is asked of the task meanwhile waits.
    """

    def __init__(
        self,
        calls: TaskCalls,
        status: TaskStatus,
        stream: TaskStream,
        on_person_expires: "OnPersonExpires | None" = None,
    ) -> None:
        super().__init__(calls, status)
        self._stream = stream
        self._on_person_expires = on_person_expires
        self._broken = asyncio.Event()  # of the present stream: that it is no more
        self._settled = asyncio.Event()  # the task has its stream, or is over
        self._settled.set()
        self._over = asyncio.Event()

    async def token(
        self, resource: str = "", actions: Sequence[str] = (), **options: Unpack[TokenOptions]
    ) -> AccessToken:
        """See HeldTask.token."""
        ask = super().token
        return await self._over_restarts(lambda: ask(resource, actions, **options))

    async def proof(self, method: str, url: str, token: AccessToken | str, nonce: str | None = None) -> str:
        """See HeldTask.proof."""
        ask = super().proof
        return await self._over_restarts(lambda: ask(method, url, token, nonce))

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

    async def note_egress(self, passes: Iterable[str]) -> None:
        """See HeldTask.note_egress."""
        ask, origins = super().note_egress, tuple(passes)
        await self._over_restarts(lambda: ask(origins))

    async def renew_person(self, person: PersonToken) -> None:
        """See HeldTask.renew_person."""
        ask = super().renew_person
        await self._over_restarts(lambda: ask(person))

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
                    if self._stream.warned and self._on_person_expires is not None:
                        _tell(self._on_person_expires, self)
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
                if not broken.is_set() and error.remote_code in {"", Unavailable.code, ShuttingDown.code}:
                    with suppress(TimeoutError):  # the call may hear of it before the stream does
                        async with asyncio.timeout(_NOTICE_SECONDS):
                            await broken.wait()
                if not broken.is_set():
                    raise


OnPending = Callable[[TaskStatus], None]
OnPersonExpires = Callable[[Task], object]


def _tell(told: OnPersonExpires, task: Task) -> None:
    try:
        told(task)
    except Exception as error:  # noqa: BLE001  # the callback is the program's; the task goes on
        context = {"message": "on_person_expires of a sojourn task failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)


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
    connection: AgentConnection,
    calls: TaskCalls,
    first: tasks_pb2.RunTaskRequest,
    patience_seconds: float,
    approve_wait: float | None = None,
    on_pending: OnPending | None = None,
    on_person_expires: OnPersonExpires | None = None,
) -> AsyncIterator[Task]:
    """Begin a task by the `first` request of a stream of its own, and end it with the block: as failed, if an exception
    leaves it.
    """
    stream = TaskStream(connection, patience_seconds)
    try:
        status = TaskStatus.of(await stream.begin(first))

        async def wait() -> TaskStatus:
            return TaskStatus.of(await stream.next())

        begun = await until_begun(status, wait, approve_wait, on_pending)
        task = Task(calls, begun, stream, on_person_expires)
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
