"""`sojourn.task(…)` and `sojourn.current_task()`: a task for a block of code, and for what that calls."""

import asyncio
import builtins
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
)
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar, Unpack, overload

from sojourn.errors import InvalidInput, NotFound, TaskOver
from sojourn.sdk.client.client import Client
from sojourn.sdk.client.loop_thread import Portal
from sojourn.sdk.client.sync import SyncClient, SyncTask
from sojourn.sdk.task.options import TaskOptions, accept_options
from sojourn.sdk.task.task import Task
from sojourn.sdk.task.values import DelegationTicket

OnEnd = Callable[[str], object]
Kind = TypeVar("Kind", Task, SyncTask)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Running:
    """A task with the client that it was begun by; `loop` if that is one of asynchronous code."""

    task: Task | SyncTask
    client: Client | SyncClient
    loop: asyncio.AbstractEventLoop | None


_OPTIONS = TaskOptions.__annotations__.keys()
_current: ContextVar[_Running | None] = ContextVar("sojourn_task", default=None)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be begun."""

    type: str
    ticket: DelegationTicket | str | None
    options: TaskOptions

    def begin(self, client: Client) -> AbstractAsyncContextManager[Task]:
        if self.ticket is None:
            return client.task(self.type, **self.options)
        return client.accept_delegation(self.ticket, **accept_options(self.options))


class TaskBlock:
    """What `sojourn.task` returns: enter it once, with `with` or `async with`."""

    def __init__(
        self, wish: _Wish, socket: str | None, wait_for_agent: float, on_end: OnEnd | None, cancel: bool
    ) -> None:
        self._wish = wish
        self._socket = socket
        self._wait_seconds = wait_for_agent
        self._on_end = on_end
        self._cancel = cancel
        self._entered: ExitStack | AsyncExitStack | None = None
        self._before: Token[_Running | None] | None = None
        self._used = False

    def __enter__(self) -> SyncTask:
        self._enter_once()
        with ExitStack() as stack:
            client = self._shared(None)
            if not isinstance(client, SyncClient):
                client = stack.enter_context(SyncClient(self._socket, wait_for_agent=self._wait_seconds))
            block = _run(self._wish, client._twin, self._on_end, cancel=False)
            task = SyncTask(client._portal, stack.enter_context(client._portal.inside(block)))
            self._before = _current.set(_Running(task, client, None))
            self._entered = stack.pop_all()
        return task

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._restore()
        assert isinstance(self._entered, ExitStack)
        return self._entered.__exit__(kind, error, trace)

    async def __aenter__(self) -> Task:
        self._enter_once()
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            client = self._shared(loop)
            if not isinstance(client, Client):
                opened = Client(self._socket, wait_for_agent=self._wait_seconds)
                client = await stack.enter_async_context(opened)
            block = _run(self._wish, client, self._on_end, cancel=self._cancel)
            task = await stack.enter_async_context(block)
            self._before = _current.set(_Running(task, client, loop))
            self._entered = stack.pop_all()
        return task

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._restore()
        assert isinstance(self._entered, AsyncExitStack)
        return await self._entered.__aexit__(kind, error, trace)

    def _enter_once(self) -> None:
        if self._used:
            raise InvalidInput("this task has begun already: `sojourn.task(…)` is entered once")
        self._used = True

    def _shared(self, loop: asyncio.AbstractEventLoop | None) -> Client | SyncClient | None:
        """The client of the task around this one, if it serves here too."""
        around = _current.get()
        if around is None or around.task.ended or around.loop is not loop:
            return None
        return around.client if self._socket in {None, around.client.socket} else None

    def _restore(self) -> None:
        if self._before is None:
            return
        try:
            _current.reset(self._before)
        except ValueError:  # left in another context than it was entered in: that one's value is not ours to set
            return


def task(
    type: str = "",  # noqa: A002  # the word of the API
    *,
    ticket: DelegationTicket | str | None = None,
    on_end: OnEnd | None = None,
    cancel: bool = True,
    socket: str | None = None,
    wait_for_agent: float = 0,
    **options: Unpack[TaskOptions],
) -> TaskBlock:
    """Begin a task that ends with the block: `with sojourn.task("triage-ticket") as task`, or `async with` the same.

    `options` are those of `Client.task`, see TaskOptions. A `ticket` in the place of the type begins what another task
    handed on. What the block calls finds the task by `current_task()`. When the task ends before the block does,
    `on_end` is called with the reason; then, in asynchronous code, the block is cancelled and raises TaskOver, unless
    `cancel` is false. In other code the next use of the task raises TaskOver. `on_end` is called once, also when all
    went well.
    An agent that is not there yet is waited for, at most `wait_for_agent` seconds.
    """
    if bool(type) == (ticket is not None):
        raise InvalidInput("name the type of the task, or give a ticket")
    unknown = options.keys() - _OPTIONS
    if unknown:
        raise TypeError(f"sojourn.task has no option {min(unknown)!r}")
    if ticket is not None:
        accept_options(options)  # said here, and not when the block is entered
    return TaskBlock(_Wish(type, ticket, options), socket, wait_for_agent, on_end, cancel)


@overload
def current_task() -> Task | SyncTask: ...
@overload
def current_task(kind: builtins.type[Kind]) -> Kind: ...
def current_task(kind: builtins.type[Any] | None = None) -> Task | SyncTask:
    """The innermost task whose block this code is called from. Raise NotFound if there is none.

    It is found across asyncio tasks, and in threads that were started with a copy of the context, as
    `asyncio.to_thread` does. Where the loop of an asynchronous task does not run, its twin for code without a loop is
    returned; `kind` says which of the two is wanted.
    """
    running = _current.get()
    if running is None:
        raise NotFound("no task is running here: begin one by `with sojourn.task(…)`")
    task, loop = running.task, running.loop
    if isinstance(task, SyncTask):
        if kind is Task:
            raise InvalidInput("the task here was begun by `with`: it has no twin for asynchronous code")
        return task
    here = loop is not None and loop is _loop_here()
    if kind is Task or (kind is None and here):
        return task
    if here or loop is None:
        raise InvalidInput("the task here is one of asynchronous code: await what you ask of it")
    return SyncTask(_LoopPortal(loop), task)


class _LoopPortal(Portal):
    """Runs coroutines in a loop that is another thread's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        if self._loop.is_closed() or _loop_here() is self._loop:
            coroutine.close()
            raise InvalidInput("the loop of this task has ended, or is this thread's own")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """The loop is its owner's to end."""


def _loop_here() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@asynccontextmanager
async def _run(wish: _Wish, client: Client, on_end: OnEnd | None, *, cancel: bool) -> AsyncIterator[Task]:
    """Run a block in a task, tell of its end, and with `cancel` end the block when the task has ended."""
    watch: _Watch | None = None
    try:
        async with wish.begin(client) as task:
            watch = _Watch(task, on_end, asyncio.current_task() if cancel else None)
            try:
                yield task
            finally:
                await watch.leave_block()
    except asyncio.CancelledError as error:
        if watch is not None and watch.did_cancel():
            raise TaskOver(f"task is {task.state}: {task.why or 'no reason given'}") from error
        raise
    finally:
        if watch is not None:
            await watch.close()


class _Watch:
    """Looks out for the end of a task."""

    def __init__(self, task: Task, on_end: OnEnd | None, block: asyncio.Task[Any] | None) -> None:
        self._task = task
        self._on_end = on_end
        self._block = block
        self._cancelling = block.cancelling() if block is not None else 0
        self._cancelled: asyncio.Task[Any] | None = None
        self._watching = asyncio.create_task(self._watch())

    async def leave_block(self) -> None:
        """From here on nothing is cancelled; what was cancelled and does not know it yet hears of it."""
        self._block = None
        if self._cancelled is not None:
            await asyncio.sleep(0)

    def did_cancel(self) -> bool:
        """Whether the block was cancelled by the end of the task, and by nobody else."""
        return self._cancelled is not None and self._cancelled.uncancel() <= self._cancelling

    async def close(self) -> None:
        if self._task.ended:
            self._tell()
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        await self._task.wait_ended()
        self._tell()
        if self._block is not None and self._task.state != "completed":
            self._cancelled = self._block
            self._block.cancel()

    def _tell(self) -> None:
        told, self._on_end = self._on_end, None
        if told is None:
            return
        try:
            told(self._task.reason)
        except Exception as error:  # noqa: BLE001  # the callback is the program's; the end goes on
            context = {"message": "on_end of a sojourn task failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
