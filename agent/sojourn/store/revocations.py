"""Revoked SVIDs and identities in the database."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Connection, bindparam, select

from sojourn.audit.journal import Event
from sojourn.authority import svid_stamps
from sojourn.identity.issued_svids import IssuedSvid
from sojourn.identity.revocation_list import Revoked, RevokedIdentity, RevokedSvid, StoredRevocations, Times
from sojourn.store import settings
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.restorations import SVIDS_FROM
from sojourn.store.tables import revocations, revoked_identities

_RAN, _LATEST = "revocations_ran", "revocations_latest"  # as `Times` has them
_NO_SVID = revocations.delete().where(revocations.c.id == bindparam("named"))
_NO_IDENTITY = revoked_identities.delete().where(
    revoked_identities.c.kind == bindparam("of_kind"), revoked_identities.c.name == bindparam("named")
)


class RevocationTable:
    """The store that the revocations ask for."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit

    def load(self) -> StoredRevocations:
        """All of it, read in the calling thread: for the start."""

        def work(connection: Connection) -> StoredRevocations:
            return StoredRevocations(
                [_svid(row.document) for row in connection.execute(select(revocations))],
                [
                    RevokedIdentity(row.kind, row.name, **json.loads(row.document))
                    for row in connection.execute(select(revoked_identities))
                ],
                Times(int(settings.get(connection, _RAN) or 0), int(settings.get(connection, _LATEST) or 0)),
                int(settings.get(connection, SVIDS_FROM) or svid_stamps.OLDEST),
            )

        return self._database.read_now("revocations", work)

    async def put(self, revoked: Sequence[Revoked], events: Sequence[Event], times: Times) -> None:
        svids = [_svid_row(each) for each in revoked if isinstance(each, RevokedSvid)]
        identities = [_identity_row(each) for each in revoked if isinstance(each, RevokedIdentity)]

        def work(connection: Connection) -> None:
            if svids:
                connection.execute(_NO_SVID, [{"named": row["id"]} for row in svids])
                connection.execute(revocations.insert(), svids)
            if identities:
                connection.execute(_NO_IDENTITY, [_named(row["kind"], row["name"]) for row in identities])
                connection.execute(revoked_identities.insert(), identities)
            self._audit.append_in(connection, events)
            _put_times(connection, times)

        await self._database.write(work)

    async def drop(self, revoked: Sequence[Revoked], times: Times) -> None:
        svids = [{"named": _id(each)} for each in revoked if isinstance(each, RevokedSvid)]
        identities = [_named(each.kind, each.name) for each in revoked if isinstance(each, RevokedIdentity)]

        def work(connection: Connection) -> None:
            if svids:
                connection.execute(_NO_SVID, svids)
            if identities:
                connection.execute(_NO_IDENTITY, identities)
            _put_times(connection, times)

        await self._database.write(work)


def _put_times(connection: Connection, times: Times) -> None:
    settings.put(connection, _RAN, str(times.ran))
    settings.put(connection, _LATEST, str(times.latest))


def _id(revoked: RevokedSvid) -> str:
    return f"{revoked.svid.kind}:{revoked.svid.id}"


def _named(kind: str, name: str) -> dict[str, str]:
    return {"of_kind": kind, "named": name}


def _svid_row(revoked: RevokedSvid) -> dict[str, object]:
    said = {"revoked_at": revoked.revoked_at, "ran": revoked.ran, "whole": revoked.whole}
    return {
        "id": _id(revoked),
        "expires_at": revoked.svid.expires_at,
        "document": json.dumps({**asdict(revoked.svid), **said}),
    }


def _identity_row(revoked: RevokedIdentity) -> dict[str, str]:
    fields = asdict(revoked)
    return {"kind": fields.pop("kind"), "name": fields.pop("name"), "document": json.dumps(fields)}


def _svid(document: str) -> RevokedSvid:
    fields = json.loads(document)
    revoked_at = fields.pop("revoked_at")
    later = {name: fields.pop(name) for name in ("ran", "whole") if name in fields}  # what older documents lack
    return RevokedSvid(IssuedSvid(**fields), revoked_at, **later)
