"""Foreign bundles and federation relationships in the database."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, select

from sojourn.audit.journal import Event
from sojourn.spiffe import bundle as bundles_
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.tables import bundles, relationships


class ForeignTable:
    """The store that the foreign bundles ask for."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit

    def load(self) -> tuple[list[Bundle], dict[TrustDomain, dict[str, Any]]]:
        """All bundles and relationships, read in the calling thread: for the start."""

        def work(connection: Connection) -> tuple[list[Bundle], dict[TrustDomain, dict[str, Any]]]:
            rows = connection.execute(select(bundles)).all()
            found = [bundles_.parse(TrustDomain(row.trust_domain), json.loads(row.document)) for row in rows]
            related = connection.execute(select(relationships)).all()
            return found, {TrustDomain(row.trust_domain): json.loads(row.document) for row in related}

        return self._database.read_now("foreign bundles", work)

    async def put_bundle(self, bundle: Bundle, events: Sequence[Event] = ()) -> None:
        await self._put(bundles, bundle.trust_domain, bundle.document(), events)

    async def remove_bundle(self, trust_domain: TrustDomain, events: Sequence[Event] = ()) -> None:
        await self._remove(bundles, trust_domain, events)

    async def put_relationship(
        self, trust_domain: TrustDomain, document: Mapping[str, Any], events: Sequence[Event] = ()
    ) -> None:
        await self._put(relationships, trust_domain, document, events)

    async def remove_relationship(self, trust_domain: TrustDomain, events: Sequence[Event] = ()) -> None:
        await self._remove(relationships, trust_domain, events)

    async def record(self, events: Sequence[Event]) -> None:
        await self._audit.append(events)

    async def _put(
        self, table: Table, trust_domain: TrustDomain, document: Mapping[str, Any], events: Sequence[Event]
    ) -> None:
        text = json.dumps(document)

        def work(connection: Connection) -> None:
            where = table.c.trust_domain == trust_domain.name
            if connection.execute(table.update().where(where).values(document=text)).rowcount == 0:
                connection.execute(table.insert().values(trust_domain=trust_domain.name, document=text))
            self._audit.append_in(connection, events)

        await self._database.write(work)

    async def _remove(self, table: Table, trust_domain: TrustDomain, events: Sequence[Event]) -> None:
        def work(connection: Connection) -> None:
            connection.execute(table.delete().where(table.c.trust_domain == trust_domain.name))
            self._audit.append_in(connection, events)

        await self._database.write(work)
