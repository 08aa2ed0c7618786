"""The audit journal in the database."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from sojourn.limits import AUDIT_LISTED
from sojourn.oversight.audit import FIRST, Event, Record, digest_of
from sojourn.store import settings
from sojourn.store.database import Database
from sojourn.store.prepared import Prepared
from sojourn.store.tables import audit

_HEAD = "audit_head"
_INSERT = Prepared(audit.insert(), ("seq", "at_ms", "event", "fields", "digest"))


class AuditTable:
    """Appends in the writer thread, which alone knows the head of the chain.

    Records of writes that share a commit go into the journal together, as the last that is done before it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._head: tuple[int, str] | None = None
        self._rows: list[dict[str, Any]] = []  # that are to be written with the head
        database.on_finish(self._write)
        database.on_rollback(self._forget)

    def _forget(self) -> None:
        self._head = None
        self._rows.clear()

    def append_in(self, connection: Connection, events: Sequence[Event]) -> None:
        """Append within a write that is under way, so that the record and what it records are one."""
        if self._head is None:
            kept = (settings.get(connection, _HEAD) or f"0 {FIRST}").split(" ")
            # What was remembered, not what lies there: if the journal was cut short, the gap stays to be seen.
            self._head = (int(kept[0]), kept[1])
        seq, digest = self._head
        for event in events:
            seq += 1
            digest = digest_of(digest, seq, event)
            self._rows.append(
                {"seq": seq, "at_ms": event.at_ms, "event": event.event, "fields": event.fields, "digest": digest}
            )
        self._head = (seq, digest)

    def _write(self, connection: Connection) -> None:
        if self._rows and self._head is not None:
            _INSERT.run_for_each(connection, self._rows)
            seq, digest = self._head
            settings.put(connection, _HEAD, f"{seq} {digest}")  # apart from the journal: cutting that short shows
            self._rows = []

    async def append(self, events: Sequence[Event]) -> None:
        await self._database.write(lambda connection: self.append_in(connection, events))

    async def tail(self, limit: int, containing: str = "") -> list[Record]:
        """The last `limit` records, of those in whose fields this text stands, oldest first."""
        statement = select(audit).order_by(audit.c.seq.desc()).limit(min(limit, AUDIT_LISTED))
        if containing:
            statement = statement.where(audit.c.fields.contains(containing, autoescape=True))

        def work(connection: Connection) -> list[Record]:
            return [Record(*row) for row in connection.execute(statement)][::-1]

        return await self._database.read(work)

    async def of_events(self, events: Collection[str], since_ms: int, containing: str) -> list[Record]:
        """All records of these events since a time in whose fields this text stands, oldest first."""
        statement = (
            select(audit)
            .where(audit.c.event.in_(events), audit.c.at_ms >= since_ms)
            .where(audit.c.fields.contains(containing, autoescape=True))
            .order_by(audit.c.seq)
        )

        def work(connection: Connection) -> list[Record]:
            return [Record(*row) for row in connection.execute(statement)]

        return await self._database.read(work)

    async def verify(self) -> tuple[int, int, str]:
        """Walk the whole chain. Return the number of records, the first bad seq (0: intact) and what is wrong there."""

        def work(connection: Connection) -> tuple[int, int, str]:
            count = connection.execute(select(func.count()).select_from(audit)).scalar() or 0
            digest, expected = FIRST, 1
            for row in connection.execution_options(yield_per=1000).execute(select(audit).order_by(audit.c.seq)):
                if row.seq != expected:
                    return count, expected, "a record is missing"
                digest = digest_of(digest, row.seq, Event(row.at_ms, row.event, row.fields))
                if digest != row.digest:
                    return count, row.seq, "the record is not what was written, or the one before it was changed"
                expected += 1
            head = settings.get(connection, _HEAD)
            if head != f"{expected - 1} {digest}" and count:
                return count, expected, "records are missing at the end"
            return (count, 0, "") if count or head is None else (0, 1, "all records are missing")

        return await self._database.read(work)
