"""What the kill switch holds off, in the database."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Connection, select

from sojourn.oversight.audit import Event
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.tables import settings
from sojourn.tasks.blocks import Block

_NAME = "task_blocks"


class BlockTable:
    """All blocks as one value, written together with the record of the change."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit

    def load(self) -> list[Block]:
        """Read in the calling thread: for the start."""

        def work(connection: Connection) -> list[Block]:
            stored = connection.execute(select(settings.c.value).where(settings.c.name == _NAME)).scalar()
            return [Block(**each) for each in json.loads(stored or "[]")]

        return self._database.read_now(work)

    async def save(self, blocks: Sequence[Block], event: Event) -> None:
        text = json.dumps([asdict(block) for block in blocks])

        def work(connection: Connection) -> None:
            changed = settings.update().where(settings.c.name == _NAME).values(value=text)
            if connection.execute(changed).rowcount == 0:
                connection.execute(settings.insert().values(name=_NAME, value=text))
            self._audit.append_in(connection, [event])

        await self._database.write(work)
