"""Signed events that were taken, in the database."""

import json

from sqlalchemy import Connection, func, select

from sojourn.audit.journal import Event
from sojourn.limits import FORGOTTEN_GAP_SECONDS, SIGNALS_REMEMBERED
from sojourn.runtime.forgotten_times import Forgotten
from sojourn.ssf.receiver import Claimed, Found
from sojourn.store import settings
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.forgotten_spans import spans_of
from sojourn.store.restorations import SIGNALS_AFTER
from sojourn.store.tables import signals

_FORGOTTEN = "signals_forgotten"  # issuer -> the times of events that were forgotten, milliseconds


class SignalTable:
    """The store that the signals ask for."""

    def __init__(self, database: Database, audit: AuditTable, remembered: int = SIGNALS_REMEMBERED) -> None:
        self._database = database
        self._audit = audit
        self._remembered = remembered

    async def claim(self, event: Claimed, forget_before_ms: int) -> Found:
        def work(connection: Connection) -> Found:
            forgotten = _forget(connection, event.issuer, forget_before_ms)
            known = connection.execute(select(signals).where(signals.c.id == event.id)).one_or_none()
            if known is not None:
                if known.digest != event.digest:
                    return "other"
                return "repeated" if known.done else "fresh"
            if forgotten.has(event.issued_ms) or _is_of_before(connection, event):
                return "forgotten"
            count = select(func.count()).select_from(signals).where(signals.c.issuer == event.issuer)
            if connection.execute(count).scalar_one() >= self._remembered:
                return "full"
            connection.execute(
                signals.insert().values(
                    id=event.id, issuer=event.issuer, iat_ms=event.issued_ms, digest=event.digest, done=False
                )
            )
            return "fresh"

        return await self._database.write(work)

    async def done(self, event: Claimed, record: Event) -> None:
        def work(connection: Connection) -> None:
            connection.execute(signals.update().where(signals.c.id == event.id).values(done=True))
            self._audit.append_in(connection, [record])

        await self._database.write(work)


def _is_of_before(connection: Connection, event: Claimed) -> bool:
    """Whether it is of before a database was put in the place of another, which may have known it."""
    last = settings.get(connection, SIGNALS_AFTER)
    return last is not None and event.issued_ms // 1_000 <= int(last)


def _forget(connection: Connection, issuer: str, before_ms: int) -> Forgotten:
    """Forget an issuer's old events, and return the times of all that ever were: none of these is taken again.

    The clock says what is old, and whoever sets it back must not make what was forgotten young again.
    """
    kept = json.loads(settings.get(connection, _FORGOTTEN) or "{}")
    forgotten = Forgotten.parse(str(kept.get(issuer, "")))
    old = (signals.c.issuer == issuer) & (signals.c.iat_ms < before_ms)
    spans = spans_of(connection, signals.c.iat_ms, old, FORGOTTEN_GAP_SECONDS * 1_000)
    if not spans:
        return forgotten
    connection.execute(signals.delete().where(old))
    forgotten = forgotten.and_of(spans)
    settings.put(connection, _FORGOTTEN, json.dumps({**kept, issuer: forgotten.text}))
    return forgotten
