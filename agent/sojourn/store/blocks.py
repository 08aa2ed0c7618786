"""What is switched off, in the database: by operators, and beside that by signed events.

Two values, since the release before this one reads the first and knows of no second.
"""

import json
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from sojourn.audit.journal import Event
from sojourn.store import settings
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.short_lists import TASK_BLOCKS
from sojourn.tasks.blocks import Block

_BY_SIGNALS: Final = "people_blocked_by_signals"


class BlockTable:
    """The store that the kill switch asks for."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit

    def load(self) -> list[Block]:
        """Read in the calling thread: for the start."""

        def work(connection: Connection) -> list[Block]:
            kept = [json.loads(settings.get(connection, name) or "[]") for name in (TASK_BLOCKS, _BY_SIGNALS)]
            return [Block(**each) for found in kept for each in found]

        return self._database.read_now("task blocks", work)

    async def save(self, values: Sequence[Block], events: Sequence[Event]) -> None:
        own = [_document(each) for each in values if not each.source]
        told = [{**_document(each), "source": each.source} for each in values if each.source]

        def work(connection: Connection) -> None:
            settings.put(connection, TASK_BLOCKS, json.dumps(own))
            settings.put(connection, _BY_SIGNALS, json.dumps(told))
            self._audit.append_in(connection, events)

        await self._database.write(work)


def _document(block: Block) -> dict[str, str | int]:
    return {"kind": block.kind, "name": block.name, "reason": block.reason, "since": block.since}
