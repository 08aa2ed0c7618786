"""Tasks in the database: a row for each, written together with the audit record of the change."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, LargeBinary, bindparam, cast, select

from sojourn.audit.journal import Event
from sojourn.store.audit import AuditTable
from sojourn.store.boot_id import boot_id
from sojourn.store.database import Database
from sojourn.store.prepared_statements import Prepared
from sojourn.store.tables import tasks
from sojourn.tasks.task import LIVING
from sojourn.tasks.task_record import JournaledTask, TaskRecord

_COLUMNS = ("state", "version", "boot_id", "document")
_UPDATE = Prepared(tasks.update().where(tasks.c.id == bindparam("task_id")), _COLUMNS)
_INSERT = Prepared(tasks.insert(), ("id", *_COLUMNS))


class TaskTable:
    """The journal that the task engine asks for."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit
        self._boot_id = boot_id()

    async def save(self, record: TaskRecord, event: Event) -> None:
        row = self._row(record)

        def work(connection: Connection) -> None:
            if _UPDATE.run(connection, {"task_id": record.id, **row}).rowcount == 0:
                _INSERT.run(connection, {"id": record.id, **row})
            self._audit.append_in(connection, [event])

        await self._database.write(work)

    async def record(self, event: Event) -> None:
        await self._audit.append([event])

    async def count(self, records: Sequence[TaskRecord], events: Sequence[Event]) -> None:
        """Write what these tasks have used, and these audit records. A task that is not here is none any more."""
        rows = [{"task_id": record.id, **self._row(record)} for record in records]

        def work(connection: Connection) -> None:
            _UPDATE.run_for_each(connection, rows)
            self._audit.append_in(connection, events)

        await self._database.write(work)

    async def unfinished(self) -> list[JournaledTask]:
        """The tasks that earlier runs of the agent left alive."""
        # As bytes: a text that is none would fail the whole query.
        document = cast(tasks.c.document, LargeBinary).label("document")
        found = select(tasks.c.id, tasks.c.version, tasks.c.state, tasks.c.boot_id, document).where(
            tasks.c.state.in_(LIVING)
        )

        def work(connection: Connection) -> list[JournaledTask]:
            return [
                JournaledTask(row.id, row.version, row.state, row.boot_id == self._boot_id, row.document or b"")
                for row in connection.execute(found)
            ]

        return await self._database.read(work)

    async def take_over(self, changes: Sequence[tuple[TaskRecord, Event]]) -> None:
        """Save all of these tasks with their records, or none."""
        rows = [{"task_id": record.id, **self._row(record)} for record, _ in changes]

        def work(connection: Connection) -> None:
            _UPDATE.run_for_each(connection, rows)
            self._audit.append_in(connection, [event for _, event in changes])

        await self._database.write(work)

    def _row(self, record: TaskRecord) -> dict[str, Any]:
        return {
            "state": record.state,
            "version": record.version,
            "boot_id": self._boot_id,
            "document": json.dumps(record.document),
        }
