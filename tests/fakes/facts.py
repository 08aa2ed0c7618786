"""The store of facts, in memory."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fakes.journals import FakeAuditStore
from sojourn.audit.journal import Event
from sojourn.errors import SojournError
from sojourn.facts.publications import Key, StoredFact


class FakeFactStore:
    """Keeps a document for each key, and the events in `audit`. `same_boot`: whether the machine ran ever since.

    `failure` is raised in the place of a write; `gate` holds writes up until it is set, `writing` says that one came.
    """

    def __init__(self, audit: FakeAuditStore) -> None:
        self.rows: dict[Key, str] = {}
        self.same_boot = True
        self.failure: SojournError | None = None
        self.gate: asyncio.Event | None = None
        self.writing = asyncio.Event()
        self._audit = audit
        self._turn = asyncio.Lock()  # first come, first written

    def load(self) -> list[StoredFact]:
        return [StoredFact(key, self.same_boot, json.loads(text)) for key, text in self.rows.items()]

    async def save(self, key: Key, document: Mapping[str, Any], event: Event) -> None:
        text = json.dumps(document)
        await self._write([event])
        self.rows[key] = text

    async def drop(self, keys: Sequence[Key], events: Sequence[Event]) -> None:
        await self._write(events)
        for key in keys:
            self.rows.pop(key, None)

    async def _write(self, events: Sequence[Event]) -> None:
        async with self._turn:
            self.writing.set()
            if self.gate is not None:
                await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            await self._audit.append(events)
