"""The SVIDs that were issued and have not ended, as the audit journal has them."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from sojourn.audit.journal import Audit, Record
from sojourn.audit.searchable import SVID, WORKLOAD, Key
from sojourn.errors import SojournError
from sojourn.limits import JWT_LEEWAY_SECONDS, SVID_TTL_MAX_SECONDS
from sojourn.runtime.clock import Clock, milliseconds

log = structlog.get_logger()
X509, JWT, WIT = "x509", "jwt", "wit"
_EVENTS = {
    "x509_svid_issued": X509,
    "x509_svid_minted": X509,
    "jwt_svid_issued": JWT,
    "jwt_svid_minted": JWT,
    "wit_svid_issued": WIT,
}
_FAR_ENOUGH_BACK = timedelta(seconds=SVID_TTL_MAX_SECONDS, days=1)  # a day for a clock that was set


@dataclass(frozen=True, slots=True)
class IssuedSvid:
    """One SVID. `id`: hex serial number, or `jti`. `expires_at`: seconds since the epoch.

    `issuer_id` and `root_id` are those of an X.509-SVID's intermediate and root. Minted ones have no entry.
    """

    kind: str  # x509 | jwt | wit
    id: str
    spiffe_id: str
    entry_id: str
    expires_at: int
    issuer_id: str = ""
    root_id: str = ""


class SvidJournal(Protocol):
    """Where records are found again."""

    async def of_events(self, events: Collection[str], since_ms: int, key: Key) -> list[Record]: ...


class IssuedSvids:
    """Finds what was issued."""

    def __init__(self, journal: SvidJournal, audit: Audit, clock: Clock) -> None:
        self._journal = journal
        self._audit = audit
        self._clock = clock

    async def find(
        self, *, svid_id: str = "", entry_id: str = "", spiffe_id: str = "", kind: str = ""
    ) -> list[IssuedSvid]:
        """The SVIDs with this serial number or `jti`, of this entry, or with this SPIFFE ID, that have not ended; with
        `kind` only those. What the disk does not take is not found.
        """
        try:
            await self._audit.flush()
        except SojournError as error:
            log.warning("latest_svids_not_found", reason=error.public, detail=error.detail)
        now = self._clock.now()
        since = milliseconds(now - _FAR_ENOUGH_BACK)
        events = [event for event, of_kind in _EVENTS.items() if kind in {"", of_kind}]
        key = (SVID, svid_id or entry_id) if svid_id or entry_id else (WORKLOAD, spiffe_id)
        records = await self._journal.of_events(events, since, key)
        found = {(svid.kind, svid.id): svid for svid in map(_svid, records)}
        return [
            svid
            for svid in found.values()
            if svid.expires_at + JWT_LEEWAY_SECONDS > now.timestamp()
            and svid_id in {"", svid.id}
            and entry_id in {"", svid.entry_id}
            and spiffe_id in {"", svid.spiffe_id}
        ]


def _svid(record: Record) -> IssuedSvid:
    fields = json.loads(record.fields)
    kind = _EVENTS[record.event]
    return IssuedSvid(
        kind,
        fields["serial"] if kind == X509 else fields["jti"],
        fields["spiffe_id"],
        fields.get("entry_id", ""),
        fields["expires_at"],
        fields.get("issuer_id", ""),
        fields.get("root_id", ""),
    )
