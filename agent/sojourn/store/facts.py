"""Facts in the database: a row for each, written together with the audit record of the change."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, LargeBinary, bindparam, cast, select

from sojourn.audit.journal import Event
from sojourn.facts.publications import Key, StoredFact
from sojourn.store.audit import AuditTable
from sojourn.store.boot_id import boot_id
from sojourn.store.database import Database
from sojourn.store.tables import facts

_OF_KEY = (
    (facts.c.name == bindparam("fact_name"))
    & (facts.c.subject == bindparam("fact_subject"))
    & (facts.c.source == bindparam("fact_source"))
)
_UPDATE = facts.update().where(_OF_KEY)
_DELETE = facts.delete().where(_OF_KEY)


class FactTable:
    """The store that Facts ask for."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit
        self._boot_id = boot_id()

    def load(self) -> list[StoredFact]:
        """All that is stored, read in the calling thread: for the start."""
        # As bytes: a text that is none would fail the whole query.
        document = cast(facts.c.document, LargeBinary).label("document")
        found = select(facts.c.name, facts.c.subject, facts.c.source, facts.c.boot_id, document)

        def work(connection: Connection) -> list[StoredFact]:
            return [
                StoredFact((row.name, row.subject, row.source), row.boot_id == self._boot_id, _read(row.document))
                for row in connection.execute(found)
            ]

        return self._database.read_now("facts", work)

    async def save(self, key: Key, document: Mapping[str, Any], event: Event) -> None:
        row = {"boot_id": self._boot_id, "document": json.dumps(document)}

        def work(connection: Connection) -> None:
            if connection.execute(_UPDATE, {**_bound(key), **row}).rowcount == 0:
                name, subject, source = key
                connection.execute(facts.insert().values(name=name, subject=subject, source=source, **row))
            self._audit.append_in(connection, [event])

        await self._database.write(work)

    async def drop(self, keys: Sequence[Key], events: Sequence[Event]) -> None:
        bound = [_bound(key) for key in keys]

        def work(connection: Connection) -> None:
            connection.execute(_DELETE, bound)
            self._audit.append_in(connection, events)

        await self._database.write(work)


def _bound(key: Key) -> dict[str, str]:
    return dict(zip(("fact_name", "fact_subject", "fact_source"), key, strict=True))


def _read(document: bytes | None) -> Mapping[str, Any]:
    """A row's document; an empty one if it is damaged, in which nothing will be found."""
    try:
        read = json.loads(document or b"")
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
