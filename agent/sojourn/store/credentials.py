"""Credentials of providers in the database: a row for each that is not gone, written with the record of the change."""

import json
import math

from sqlalchemy import Connection, LargeBinary, bindparam, cast, select

from sojourn.audit.journal import Event
from sojourn.credentials.credential import GONE, CredentialRecord, JournaledCredential
from sojourn.store.audit import AuditTable
from sojourn.store.boot_id import boot_id
from sojourn.store.database import Database
from sojourn.store.tables import external_credentials

_OF_ID = external_credentials.c.id == bindparam("credential_id")
_UPDATE = external_credentials.update().where(_OF_ID)
_DELETE = external_credentials.delete().where(_OF_ID)
_INSERT = external_credentials.insert()


class CredentialTable:
    """The journal that the book of credentials asks for."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit
        self._boot_id = boot_id()

    async def save(self, record: CredentialRecord, event: Event | None) -> None:
        row = {
            "task_id": record.task_id,
            "provider": record.provider,
            "state": record.state,
            "expires_at": math.ceil(record.expires_at),
            "document": json.dumps({**record.document, "boot_id": self._boot_id}),
        }

        def work(connection: Connection) -> None:
            if record.state == GONE:
                connection.execute(_DELETE, {"credential_id": record.id})
            elif connection.execute(_UPDATE, {"credential_id": record.id, **row}).rowcount == 0:
                connection.execute(_INSERT, {"id": record.id, **row})
            if event is not None:
                self._audit.append_in(connection, [event])

        await self._database.write(work)

    def load(self) -> list[JournaledCredential]:
        """All that are not gone, read in the calling thread: for the start."""
        # As bytes: a text that is none would fail the whole query.
        document = cast(external_credentials.c.document, LargeBinary).label("document")
        columns = external_credentials.c
        found = select(columns.id, columns.task_id, columns.provider, columns.state, columns.expires_at, document)

        def work(connection: Connection) -> list[JournaledCredential]:
            return [
                JournaledCredential(
                    row.id, row.task_id, row.provider, row.state, row.expires_at, row.document or b"", self._boot_id
                )
                for row in connection.execute(found)
            ]

        return self._database.read_now("credentials", work)
