"""Tasks in the database: a row for each, written together with the audit record of the change."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from sojourn.oversight.audit import Event
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.tables import tasks
from sojourn.tasks.task import LIVING, REVOKED, TaskRecord


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A task that an earlier run of the agent left alive."""

    id: str
    type_name: str
    spiffe_id: str
    uid: int


class TaskTable:
    """The journal that the task engine asks for."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()

    async def save(self, record: TaskRecord, event: Event) -> None:
        row = {
            "id": record.id,
            "state": record.state,
            "version": record.version,
            "boot_id": self._boot_id,
            "document": json.dumps(record.document),
        }

        def work(connection: Connection) -> None:
            changed = {name: value for name, value in row.items() if name != "id"}
            if connection.execute(tasks.update().where(tasks.c.id == row["id"]).values(changed)).rowcount == 0:
                connection.execute(tasks.insert().values(row))
            self._audit.append_in(connection, [event])

        await self._database.write(work)

    async def record(self, event: Event) -> None:
        await self._audit.append([event])

    async def end_unfinished(self, make_event: Any) -> list[Unfinished]:
        """Mark the tasks of earlier runs as revoked, each with the audit event that `make_event(unfinished)` gives."""

        def work(connection: Connection) -> list[Unfinished]:
            rows = connection.execute(select(tasks).where(tasks.c.state.in_(LIVING))).all()
            found = []
            for row in rows:
                document = json.loads(row.document)
                found.append(Unfinished(row.id, document["type"], document["spiffe_id"], document["uid"]))
                document["reason"] = "agent_restart"
                connection.execute(
                    tasks.update()
                    .where(tasks.c.id == row.id)
                    .values(state=REVOKED, version=row.version + 1, document=json.dumps(document))
                )
            if found:
                self._audit.append_in(connection, [make_event(each) for each in found])
            return found

        return await self._database.write(work)
