"""The stores of tasks and of the audit journal, in memory."""

import asyncio
import json
from collections.abc import Awaitable, Sequence
from typing import Any

from sojourn.errors import SojournError
from sojourn.oversight.audit import Event
from sojourn.tasks.task import TaskRecord


class FakeAuditStore:
    """Keeps audit events. `failure` is raised in the place of a write."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.failure: SojournError | None = None

    async def append(self, events: Sequence[Event]) -> None:
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
    """Keeps (state, version) of each task by its id, and the events.

    `failure` is raised in the place of a write; `gate` holds writes up until it is set, `writing` says that one came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, tuple[str, int]] = {}
        self.gate: asyncio.Event | None = None
        self.writing = asyncio.Event()
        self._turn = asyncio.Lock()  # first come, first written

    async def quiet(self) -> None:
        """Return when all that was under way is written."""
        async with self._turn:
            return

    async def save(self, record: TaskRecord, event: Event) -> None:
        await _whoever_waits(self._write([event], {record.id: (record.state, record.version)}))

    async def record(self, event: Event) -> None:
        await _whoever_waits(self._write([event], {}))

    async def _write(self, events: Sequence[Event], rows: dict[str, tuple[str, int]]) -> None:
        async with self._turn:
            self.writing.set()
            if self.gate is not None:
                await self.gate.wait()
            await self.append(events)
            self.rows.update(rows)


async def _whoever_waits(write: Awaitable[None]) -> None:
    """A write that is under way goes on, whether or not somebody still waits for it: as in a database's thread."""
    await asyncio.shield(asyncio.ensure_future(write))
