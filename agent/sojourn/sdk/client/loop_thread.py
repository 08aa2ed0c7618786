"""One event loop in a thread of its own, for callers that have none."""

import asyncio
import concurrent.futures
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from sojourn.errors import InvalidInput
from sojourn.sdk.client.greenlets import new_event_loop, refuse_eventlet

Result = TypeVar("Result")
Asked = TypeVar("Asked")
Given = ParamSpec("Given")


class Portal:
    """Runs coroutines for other threads. `close` ends the loop and the thread.

    Raise InvalidInput where eventlet has replaced the process's threads.
    """

    def __init__(self) -> None:
        refuse_eventlet()
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sojourn-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run to the end and return what it returns, or raise what it raises. Blocks this thread."""
        future = self._begin(coroutine)
        try:
            return future.result()
        except BaseException:  # this thread was interrupted: so is the coroutine
            future.cancel()
            raise

    def run_asking(
        self,
        make: Callable[[Callable[[], Awaitable[Asked]]], Coroutine[Any, Any, Result]],
        blocking: Callable[[], Asked],
    ) -> Result:
        """Run the coroutine that `make` returns. What it is given calls `blocking`: in this thread, not in the loop."""
        asked: queue.SimpleQueue[asyncio.Future[Asked] | None] = queue.SimpleQueue()

        async def ask() -> Asked:
            future = self._loop.create_future()
            asked.put(future)
            return cast("Asked", await future)

        async def whole() -> Result:
            try:
                return await make(ask)
            finally:
                asked.put(None)

        def settle(future: "asyncio.Future[Asked]", done: "concurrent.futures.Future[Asked]") -> None:
            if future.done():
                return
            error = done.exception()
            if error is None:
                future.set_result(done.result())
            else:
                future.set_exception(error)

        running = self._begin(whole())
        try:
            while (future := asked.get()) is not None:
                done: concurrent.futures.Future[Asked] = concurrent.futures.Future()
                try:
                    done.set_result(blocking())
                except Exception as error:  # noqa: BLE001  it is the coroutine's to judge
                    done.set_exception(error)
                self._loop.call_soon_threadsafe(settle, future, done)
            return running.result()
        except BaseException:
            running.cancel()
            raise

    @contextmanager
    def inside(self, context: AbstractAsyncContextManager[Result]) -> Iterator[Result]:
        """Enter an asynchronous context and leave it, with the exception of the block if there is one."""
        entered = self.run(_enter(context))
        try:
            yield entered
        except BaseException as error:
            if not self.run(_leave(context, error)):
                raise
        else:
            self.run(_leave(context, None))

    def _begin(self, coroutine: Coroutine[Any, Any, Result]) -> "concurrent.futures.Future[Result]":
        if self._loop.is_closed() or threading.current_thread() is self._thread:
            coroutine.close()
            raise InvalidInput("client is not open, or is called from inside its own loop")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _enter(context: AbstractAsyncContextManager[Result]) -> Result:
    return await context.__aenter__()


async def _leave(context: AbstractAsyncContextManager[Any], error: BaseException | None) -> bool:
    if error is None:
        return bool(await context.__aexit__(None, None, None))
    try:
        return bool(await context.__aexit__(type(error), error, error.__traceback__))
    except (KeyboardInterrupt, SystemExit, GeneratorExit) as raised:
        if raised is error:  # it must not end the loop's thread; the caller raises it
            return False
        raise


def entering(
    name: str, method: Callable[Concatenate[Any, Given], AbstractAsyncContextManager[Result]]
) -> Callable[Concatenate[Any, Given], AbstractContextManager[Result]]:
    """The method of that name of one's `_twin`, whose context is entered in one's `_portal`, and served there.

    `name`: the type of what the context gives.
    """

    @wraps(method)
    def call(self: Any, /, *args: Given.args, **kwargs: Given.kwargs) -> AbstractContextManager[Result]:
        portal: Portal = self._portal
        return portal.inside(getattr(self._twin, method.__name__)(*args, **kwargs))

    return returning(f"AbstractContextManager[{name}]", call)


def returning(name: str, call: Callable[Given, Result]) -> Callable[Given, Result]:
    """With what it returns, and how it is entered, told in its help."""
    call.__signature__ = inspect.signature(call).replace(return_annotation=name)  # type: ignore[attr-defined]
    call.__doc__ = (call.__doc__ or "").replace("async with", "with")
    return call
