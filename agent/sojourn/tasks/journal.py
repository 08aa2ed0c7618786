"""Writing what becomes of tasks, and of what they have: what grants, before it is true; what takes away, once it is."""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from sojourn.audit.journal import Event
from sojourn.errors import SojournError, StoreFailed
from sojourn.errors.oauth import NotOnDisk
from sojourn.limits import WRITES_PER_COMMIT
from sojourn.tasks.task_record import TaskRecord

log = structlog.get_logger()
RETRY_SECONDS = 1.0


class TaskStore(Protocol):
    """Where tasks are journaled, each change together with its audit record."""

    async def save(self, record: TaskRecord, event: Event) -> None: ...

    async def record(self, event: Event) -> None: ...

    async def count(self, records: Sequence[TaskRecord], events: Sequence[Event]) -> None: ...


class Named(Protocol):
    """What is written of a thing: its newest state, under its ID."""

    @property
    def id(self) -> str: ...


Written = TypeVar("Written", bound=Named)


class _Now:
    """A change that is being written."""

    __slots__ = ("written_over",)

    def __init__(self) -> None:
        self.written_over = False


class Changes(Generic[Written]):
    """Writes the changes of each thing in their order; `run` must be running for those that are written `later`."""

    def __init__(
        self,
        save: Callable[[Written, Event | None], Awaitable[None]],
        thing: str,
        *,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """`save`: writes a change with its audit record, both or none. `thing`: what it is a change of, for the log.
        `retry_seconds`: until what the disk did not take is tried again.
        """
        self.retry_seconds = retry_seconds
        self._save = save
        self._thing = thing
        self._queue: deque[tuple[Written, Event | None]] = deque()
        self._pending: Counter[str] = Counter()
        self._written: dict[str, asyncio.Event] = {}
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}  # who wants to know how the next try ends, by name
        self._under_way: dict[str, list[_Now]] = {}
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def now(self, record: Written, event: Event) -> bool:
        """Return when the change is on disk. Raise what the store raises, and StoreFailed if an earlier one waits.

        Whether a record of the thing was asked for meanwhile, which does not have this change: it is written over it.
        """
        if record.id in self._pending:
            raise StoreFailed(f"an earlier change of the {self._thing} is not on disk yet")
        self._asked_for(record.id)
        mine = _Now()
        self._under_way.setdefault(record.id, []).append(mine)
        try:
            await self._save(record, event)
        finally:
            others = self._under_way[record.id]
            others.remove(mine)
            if not others:
                del self._under_way[record.id]
        return mine.written_over

    def later(self, record: Written, event: Event | None) -> None:
        """Have the change written, however often that must be tried. `event` is None where the audit has it already."""
        self._asked_for(record.id)
        self._queue.append((record, event))
        self._pending[record.id] += 1
        self._written.setdefault(record.id, asyncio.Event())
        self._quiet.clear()
        self._wake.set()

    def _asked_for(self, name: str) -> None:
        for each in self._under_way.get(name, ()):
            each.written_over = True

    async def written(self, name: str) -> None:
        """Return when all changes of the thing with this ID are on disk."""
        while (done := self._written.get(name)) is not None:
            await done.wait()

    @property
    def waiting(self) -> list[str]:
        """The IDs of what has changes that are not on disk."""
        return list(self._written)

    async def told(self, name: str) -> None:
        """Return when all changes of the thing with this ID are on disk. Raise NotOnDisk once one was tried and was not
        taken: it is in force, and is tried again.
        """
        if name not in self._written:
            return
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(name, set())
        waiting.add(outcome)
        try:
            await outcome
        finally:
            waiting.discard(outcome)
            if not waiting and self._waiting.get(name) is waiting:
                del self._waiting[name]

    async def settled(self, name: str) -> None:
        """As `written`, for whoever would make a further change. Raise StoreFailed once one before was not taken."""
        try:
            await self.told(name)
        except NotOnDisk as error:
            raise StoreFailed(
                f"an earlier change of the {self._thing} is not on disk yet: {error.public}", detail=error.detail
            ) from error

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
            outcomes = await asyncio.gather(*(self._save(*each) for each in batch), return_exceptions=True)
            failed = [each for each, error in zip(batch, outcomes, strict=True) if error is not None]
            for (record, _), error in zip(batch, outcomes, strict=True):
                if error is None:
                    self._done(record.id)
                elif isinstance(error, SojournError):
                    self._not_written(record.id, error.public, detail=error.detail)
                else:
                    self._not_written(record.id, "internal error; the log has it", exc_info=error)
            self._queue.extendleft(reversed(failed))
            if failed:
                await asyncio.sleep(self.retry_seconds)

    def _next_batch(self) -> list[tuple[Written, Event | None]]:
        """The oldest change of each of some things: those of one never overtake each other."""
        batch: dict[str, tuple[Written, Event | None]] = {}
        later: list[tuple[Written, Event | None]] = []
        while self._queue and len(batch) < WRITES_PER_COMMIT:
            each = self._queue.popleft()
            if each[0].id in batch:
                later.append(each)
            else:
                batch[each[0].id] = each
        self._queue.extendleft(reversed(later))
        return list(batch.values())

    def _done(self, name: str) -> None:
        self._pending[name] -= 1
        if not self._pending[name]:
            del self._pending[name]
            self._written.pop(name).set()
            for outcome in self._waiting.pop(name, ()):
                if not outcome.done():
                    outcome.set_result(None)

    def _not_written(self, name: str, reason: str, **why: object) -> None:
        event = f"{self._thing}_not_written"
        log.error(event, **{f"{self._thing}_id": name}, reason=reason, **why)
        for outcome in self._waiting.pop(name, ()):
            if not outcome.done():
                outcome.set_exception(
                    NotOnDisk(f"it is in force, and not on disk yet: {reason}; it is tried again until the agent stops")
                )


class Journal(Changes[TaskRecord]):
    """Of tasks."""

    def __init__(self, store: TaskStore, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self._store = store
        super().__init__(self._save_task, "task", retry_seconds=retry_seconds)

    async def _save_task(self, record: TaskRecord, event: Event | None) -> None:
        if event is None:
            await self._store.count([record], [])
        else:
            await self._store.save(record, event)

    async def note(self, event: Event) -> None:
        """Return when an audit record that changes no task is on disk. Raise what the store raises."""
        await self._store.record(event)

    async def counted(self, records: Sequence[TaskRecord], events: Sequence[Event]) -> None:
        """Return when what some tasks have used is on disk, all or nothing. Raise what the store raises."""
        for record in records:
            self._asked_for(record.id)
        await self._store.count(records, events)
