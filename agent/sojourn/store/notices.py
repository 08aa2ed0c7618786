"""Notices of approval requests in the database: a row for each request that was told of, or is to be."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, select

from sojourn.store.database import Database
from sojourn.store.tables import approval_notices

_OF_ID = approval_notices.c.id == bindparam("approval_id")
_UPDATE = approval_notices.update().where(_OF_ID)
_DELETE = approval_notices.delete().where(_OF_ID)
_INSERT = approval_notices.insert()


class NoticeTable:
    """The store that the notices ask for."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> dict[str, Any]:
        """The document of each request, read in the calling thread: for the start. None for one that is damaged."""

        def work(connection: Connection) -> dict[str, Any]:
            return {row.id: _read(row.document) for row in connection.execute(select(approval_notices))}

        return self._database.read_now("approval notices", work)

    async def keep(self, approval_id: str, document: Mapping[str, Any]) -> None:
        row = {"document": json.dumps(document)}

        def work(connection: Connection) -> None:
            if connection.execute(_UPDATE, {"approval_id": approval_id, **row}).rowcount == 0:
                connection.execute(_INSERT, {"id": approval_id, **row})

        await self._database.write(work)

    async def forget(self, approval_id: str) -> None:
        def work(connection: Connection) -> None:
            connection.execute(_DELETE, {"approval_id": approval_id})

        await self._database.write(work)


def _read(document: str) -> Any:
    try:
        return json.loads(document)
    except ValueError:
        return None
