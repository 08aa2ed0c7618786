"""Writing what becomes of tasks: what grants, before it is true; what takes away, once it is."""

import asyncio
from collections import Counter, deque
from typing import Protocol

import structlog

from sojourn.errors import SojournError, StoreFailed
from sojourn.limits import WRITES_PER_COMMIT
from sojourn.oversight.audit import Event
from sojourn.tasks.task import TaskRecord

log = structlog.get_logger()
RETRY_SECONDS = 1.0


class TaskStore(Protocol):
    """Where tasks are journaled, each change together with its audit record."""

    async def save(self, record: TaskRecord, event: Event) -> None: ...

    async def record(self, event: Event) -> None: ...


class Journal:
    """Writes the changes of each task in their order; `run` must be running for those that are written `later`."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._queue: deque[tuple[TaskRecord, Event]] = deque()
        self._pending: Counter[str] = Counter()
        self._written: dict[str, asyncio.Event] = {}
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def now(self, record: TaskRecord, event: Event) -> None:
        """Return when the change is on disk. Raise what the store raises, and StoreFailed if an earlier one waits."""
        if self._pending[record.id]:
            raise StoreFailed("an earlier change of the task is not on disk yet")
        await self._store.save(record, event)

    async def note(self, event: Event) -> None:
        """Return when an audit record that changes no task is on disk. Raise what the store raises."""
        await self._store.record(event)

    def later(self, record: TaskRecord, event: Event) -> None:
        """Have the change written, however often that must be tried."""
        self._queue.append((record, event))
        self._pending[record.id] += 1
        self._written.setdefault(record.id, asyncio.Event())
        self._quiet.clear()
        self._wake.set()

    async def written(self, task_id: str) -> None:
        """Return when all changes of a task are on disk."""
        while (done := self._written.get(task_id)) is not None:
            await done.wait()

    async def drain(self) -> None:
        """Return when everything is on disk."""
        await self._quiet.wait()

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        while True:
            await self._wake.wait()
            batch = self._next_batch()
            if not batch:
                self._wake.clear()
                self._quiet.set()
                continue
            outcomes = await asyncio.gather(*(self._store.save(*each) for each in batch), return_exceptions=True)
            failed = [each for each, error in zip(batch, outcomes, strict=True) if error is not None]
            for (record, _), error in zip(batch, outcomes, strict=True):
                if error is None:
                    self._done(record.id)
                elif isinstance(error, SojournError):
                    log.error("task_not_written", task=record.id, reason=error.public, detail=error.detail)
                else:
                    log.error("task_not_written", task=record.id, exc_info=error)
            self._queue.extendleft(reversed(failed))
            if failed:
                await asyncio.sleep(RETRY_SECONDS)

    def _next_batch(self) -> list[tuple[TaskRecord, Event]]:
        """The oldest change of each of some tasks: those of one task never overtake each other."""
        batch: dict[str, tuple[TaskRecord, Event]] = {}
        later: list[tuple[TaskRecord, Event]] = []
        while self._queue and len(batch) < WRITES_PER_COMMIT:
            each = self._queue.popleft()
            if each[0].id in batch:
                later.append(each)
            else:
                batch[each[0].id] = each
        self._queue.extendleft(reversed(later))
        return list(batch.values())

    def _done(self, task_id: str) -> None:
        self._pending[task_id] -= 1
        if not self._pending[task_id]:
            del self._pending[task_id]
            self._written.pop(task_id).set()
