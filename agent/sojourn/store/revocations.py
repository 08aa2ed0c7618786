"""Revoked SVIDs in the database."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Connection, select

from sojourn.identity.issued import IssuedSvid
from sojourn.identity.revocations import RevokedSvid
from sojourn.store.database import Database
from sojourn.store.tables import revocations


class RevocationTable:
    """The store that the revocations ask for."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> list[RevokedSvid]:
        """The whole list, read in the calling thread: for the start."""

        def work(connection: Connection) -> list[RevokedSvid]:
            return [_revoked(row.document) for row in connection.execute(select(revocations))]

        return self._database.read_now("revocations", work)

    async def put(self, revoked: Sequence[RevokedSvid]) -> None:
        rows = [
            {
                "id": f"{each.svid.kind}:{each.svid.id}",
                "expires_at": each.svid.expires_at,
                "document": json.dumps({**asdict(each.svid), "revoked_at": each.revoked_at}),
            }
            for each in revoked
        ]

        def work(connection: Connection) -> None:
            known = set(connection.execute(select(revocations.c.id)).scalars())
            fresh = [row for row in rows if row["id"] not in known]
            if fresh:
                connection.execute(revocations.insert(), fresh)

        await self._database.write(work)

    async def drop_ended(self, now: int) -> None:
        await self._database.write(
            lambda connection: connection.execute(revocations.delete().where(revocations.c.expires_at <= now))
        )


def _revoked(document: str) -> RevokedSvid:
    fields = json.loads(document)
    revoked_at = fields.pop("revoked_at")
    return RevokedSvid(IssuedSvid(**fields), revoked_at)
