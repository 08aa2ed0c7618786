"""Entries in the database: one JSON document each."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, select
from sqlalchemy.exc import IntegrityError

from sojourn.attestation.selectors import Selector, text_of
from sojourn.audit.journal import Event
from sojourn.errors import AlreadyExists
from sojourn.identity.custom_claims import JwtClaims
from sojourn.identity.entries import Registration, registration
from sojourn.identity.templates import parse_id
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.tables import entries

_PLAIN = (
    "x509_svid_ttl",
    "jwt_svid_ttl",
    "hint",
    "admin",
    "downstream",
    "store_svid",
    "disable_x509_svid_prefetch",
    "jwt_svid_include_jti",
    "expires_at",
    "revision",
    "created_at",
)
# What older documents do not have, and what that means.
_LATER = {"priority": 0, "origin": "", "owner": "", "sponsor": ""}


class EntryTable:
    """The store that the registry asks for."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit

    def load(self) -> list[Registration]:
        """All entries, read in the calling thread: for the start."""

        def work(connection: Connection) -> list[Registration]:
            return [_entry(row.id, json.loads(row.document)) for row in connection.execute(select(entries))]

        return self._database.read_now("entries", work)

    async def write(self, put: Sequence[Registration], remove: Sequence[str], events: Sequence[Event] = ()) -> None:
        """Replace and remove entries, and record that, in one transaction. Raise AlreadyExists if one has a twin."""

        def work(connection: Connection) -> None:
            gone = [*remove, *(entry.id for entry in put)]
            for start in range(0, len(gone), 500):
                connection.execute(delete(entries).where(entries.c.id.in_(gone[start : start + 500])))
            if put:
                rows = [
                    {"id": entry.id, "identity_digest": entry.identity_digest, "document": _document(entry)}
                    for entry in put
                ]
                try:
                    connection.execute(entries.insert(), rows)
                except IntegrityError as error:
                    raise AlreadyExists("similar entry already exists") from error
            self._audit.append_in(connection, events)

        await self._database.write(work)


def _document(entry: Registration) -> str:
    document: dict[str, Any] = {
        "spiffe_id": str(entry.spiffe_id),
        "parent_id": str(entry.parent_id),
        "selectors": text_of(entry.selectors),
        "dns_names": list(entry.dns_names),
        "federates_with": [domain.name for domain in entry.federates_with],
        "jwt_claims": entry.jwt_claims.declared,
    }
    document.update({name: getattr(entry, name) for name in (*_PLAIN, *_LATER)})
    return json.dumps(document)


def _entry(entry_id: str, document: dict[str, Any]) -> Registration:
    return registration(
        {
            "id": entry_id,
            "spiffe_id": parse_id(document["spiffe_id"]),
            "parent_id": SpiffeId.parse(document["parent_id"]),
            "selectors": frozenset(Selector.parse(text) for text in document["selectors"]),
            "dns_names": tuple(document["dns_names"]),
            "federates_with": tuple(TrustDomain(name) for name in document["federates_with"]),
            "jwt_claims": JwtClaims.parse(document.get("jwt_claims", {})),
            **{name: document[name] for name in _PLAIN},
            **{name: document.get(name, absent) for name, absent in _LATER.items()},
        }
    )
