"""The stores of tasks and of the audit journal, in memory."""

import asyncio
import json
from collections.abc import Awaitable, Sequence
from typing import Any

from sojourn.audit.journal import Event
from sojourn.errors import SojournError
from sojourn.tasks.break_glass_reviews import Review
from sojourn.tasks.task import LIVING
from sojourn.tasks.task_record import JournaledTask, TaskRecord


class FakeAuditStore:
    """Keeps audit events. `failure` is raised in the place of a write."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.failure: SojournError | None = None
        self._later: tuple[int, SojournError] | None = None

    def fail_after(self, writes: int, failure: SojournError) -> None:
        """Take so many writes more; from then on `failure` is raised."""
        self._later = (writes, failure)

    async def append(self, events: Sequence[Event]) -> None:
        if self._later is not None:
            writes, failure = self._later
            self._later = (writes - 1, failure) if writes else None
            self.failure = None if writes else failure
        if self.failure is not None:
            raise self.failure
        self.events.extend(events)

    @property
    def names(self) -> list[str]:
        return [each.event for each in self.events]

    def fields(self, name: str) -> list[dict[str, Any]]:
        """The fields of all events with this name."""
        return [json.loads(each.fields) for each in self.events if each.event == name]


class FakeTaskStore(FakeAuditStore):
    """Keeps (state, version) and document of each task by its id, and the events.

    `same_boot` says whether the machine has run ever since. `failure` is raised in the place of a write; `gate` holds
    writes up until it is set, `writing` says that one came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, tuple[str, Any]] = {}
        self.documents: dict[str, bytes] = {}
        self.same_boot = True
        self.gate: asyncio.Event | None = None
        self.writing = asyncio.Event()
        self._turn = asyncio.Lock()  # first come, first written

    async def quiet(self) -> None:
        """Return when all that was under way is written."""
        async with self._turn:
            return

    async def save(self, record: TaskRecord, event: Event) -> None:
        await _whoever_waits(self._write([event], [_as_now(record)]))

    async def record(self, event: Event) -> None:
        await _whoever_waits(self._write([event], []))

    async def count(self, records: Sequence[TaskRecord], events: Sequence[Event]) -> None:
        known = [_as_now(record) for record in records if record.id in self.rows]
        await _whoever_waits(self._write(events, known))

    async def unfinished(self) -> list[JournaledTask]:
        return [
            JournaledTask(task_id, version, state, self.same_boot, self.documents[task_id])
            for task_id, (state, version) in self.rows.items()
            if state in LIVING
        ]

    async def take_over(self, changes: Sequence[tuple[TaskRecord, Event]]) -> None:
        records = [_as_now(record) for record, _ in changes]
        await _whoever_waits(self._write([event for _, event in changes], records))

    async def _write(self, events: Sequence[Event], records: Sequence[tuple[str, str, int, bytes]]) -> None:
        async with self._turn:
            self.writing.set()
            if self.gate is not None:
                await self.gate.wait()
            await self.append(events)
            for task_id, state, version, document in records:
                self.rows[task_id] = (state, version)
                self.documents[task_id] = document


class FakeReviewStore:
    """Keeps the reviews that are owed; their records go to `journal`, and fail as it does."""

    def __init__(self, journal: FakeAuditStore) -> None:
        self._journal = journal
        self.kept: list[Review] = []

    async def save(self, values: Sequence[Review], event: Event) -> None:
        await self._journal.append([event])
        self.kept = list(values)


def _as_now(record: TaskRecord) -> tuple[str, str, int, bytes]:
    return record.id, record.state, record.version, json.dumps(record.document).encode()


async def _whoever_waits(write: Awaitable[None]) -> None:
    """A write that is under way goes on, whether or not somebody still waits for it: as in a database's thread."""
    await asyncio.shield(asyncio.ensure_future(write))
