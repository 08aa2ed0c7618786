"""Work that goes on whether or not somebody still waits for it."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import structlog

from sojourn.errors import Bug, SojournError
from sojourn.runtime.clock import Alarms

log = structlog.get_logger()
Given = ParamSpec("Given")
Result = TypeVar("Result")


def whole(change: Callable[Given, Coroutine[Any, Any, Result]]) -> Callable[Given, Coroutine[Any, Any, Result]]:
    """A change that is gone through with although its caller may have gone: disk and memory must not part."""

    @wraps(change)
    async def shielded(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        return await asyncio.shield(asyncio.ensure_future(change(*args, **kwargs)))

    return shielded


class Background:
    """Keeps what is under way. What fails in a way that nobody foresaw is logged as the event `failed`."""

    def __init__(self, failed: str) -> None:
        self._failed = failed
        self._running: set[asyncio.Future[Any]] = set()

    def run(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Future[Result]":
        """Begin. Whoever waits for what is returned should shield it."""
        running = asyncio.ensure_future(work)
        self._running.add(running)
        running.add_done_callback(self._ran)
        return running

    async def quiet(self) -> None:
        """Return when nothing is under way."""
        while self._running:
            await asyncio.wait(set(self._running))

    def _ran(self, done: "asyncio.Future[Any]") -> None:
        self._running.discard(done)
        error = None if done.cancelled() else done.exception()  # whoever waits gets it too
        if error is not None and (isinstance(error, Bug) or not isinstance(error, SojournError)):
            log.error(self._failed, exc_info=error)


class Retry:
    """Work that is done once more a while after it was asked for, and once however often that was meanwhile."""

    def __init__(
        self,
        alarms: Alarms,
        background: Background,
        seconds: float,
        work: Callable[[], Coroutine[Any, Any, object]],
    ) -> None:
        """`work` is done `seconds` after the first that asks, in the `background`."""
        self._alarms = alarms
        self._background = background
        self._seconds = seconds
        self._work = work
        self._asked = False

    def ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._alarms.after(self._seconds, self._begin)

    def _begin(self) -> None:
        self._asked = False
        self._background.run(self._work())
