"""Requests that are repeated under an idempotency key begin one task."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from sojourn.errors import FailedPrecondition
from sojourn.tasks.registry import LiveTasks
from sojourn.tasks.task import Task


class Repeats:
    """What was begun under which key, for as long as the task is known."""

    def __init__(self, tasks: LiveTasks) -> None:
        self._tasks = tasks
        self._begun: dict[Hashable, tuple[Any, asyncio.Future[Task]]] = {}

    def known(self, name: Hashable, request: Any) -> Awaitable[Task] | None:
        """What the same request has begun, or is beginning. Raise FailedPrecondition if it was another request."""
        if name not in self._begun:
            return None
        first, beginning = self._begun[name]
        if first != request:
            raise FailedPrecondition("the idempotency key was used for another request")
        return asyncio.shield(beginning)

    def once(self, name: Hashable, request: Any, begin: Callable[[], Awaitable[Task]]) -> Awaitable[Task]:
        """Begin, and remember what: whoever asks meanwhile waits for the same. What fails may be tried again."""
        beginning = asyncio.ensure_future(begin())
        self._begun[name] = (request, beginning)
        beginning.add_done_callback(lambda done: self._remember(name, done))
        return asyncio.shield(beginning)

    def _remember(self, name: Hashable, done: "asyncio.Future[Task]") -> None:
        if done.cancelled() or done.exception() is not None:
            del self._begun[name]
        else:
            self._tasks.on_forget(done.result(), lambda: self._begun.pop(name, None))
