"""The audit journal in the database.

Its oldest records may be pruned. Where it begins then is kept apart from it, and recorded in it: `journal_pruned` names
the last record that is gone, and its digest, from which the rest goes on. The newest of those stays.
"""

import asyncio
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, text

from sojourn.audit.journal import FIRST, Event, Record, digest_of
from sojourn.errors import LimitExceeded, StoreFailed, StoreFull
from sojourn.jose.canonical_json import canonical
from sojourn.limits import AUDIT_KEPT_LEAST, AUDIT_LISTED
from sojourn.store import settings
from sojourn.store.database import Database
from sojourn.store.prepared_statements import Prepared
from sojourn.store.tables import audit

_HEAD, _START = "audit_head", "audit_start"
PRUNED = "journal_pruned"
_INSERT = Prepared(audit.insert(), ("seq", "at_ms", "event", "fields", "digest"))


@dataclass(slots=True)
class _Chain:
    """A walk along the records, of which the last one was this."""

    seq: int
    digest: str

    @classmethod
    def kept(cls, connection: Connection, name: str) -> "_Chain":
        seq, digest = (settings.get(connection, name) or f"0 {FIRST}").split(" ")
        return cls(int(seq), digest)

    def wrong(self, row: Row[Any]) -> str:
        """Go on to the next record. Return what is wrong with it, or ''."""
        if row.seq != self.seq + 1:
            return "a record is missing"
        self.seq, self.digest = row.seq, digest_of(self.digest, row.seq, Event(row.at_ms, row.event, row.fields))
        if self.digest != row.digest:
            return "the record is not what was written, or the one before it was changed"
        return ""


class AuditTable:
    """Appends in the writer thread, which alone knows the head of the chain.

    Records of writes that share a commit go into the journal together, as the last that is done before it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._head: tuple[int, str] | None = None
        self._walking = asyncio.Lock()  # one at a time: while a thread walks others wait for the interpreter
        self._rows: list[dict[str, Any]] = []  # that are to be written with the head
        database.on_finish(self._write)
        database.on_rollback(self._forget)

    def _forget(self) -> None:
        self._head = None
        self._rows.clear()

    def append_in(self, connection: Connection, events: Sequence[Event]) -> None:
        """Append within a write that is under way, so that the record and what it records are one."""
        if self._head is None:
            # What was remembered, not what lies there: if the journal was cut short, the gap stays to be seen.
            kept = _Chain.kept(connection, _HEAD)
            self._head = (kept.seq, kept.digest)
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
        return (await self._records(statement))[::-1]

    async def of_events(self, events: Collection[str], since_ms: int, containing: str) -> list[Record]:
        """All records of these events since a time in whose fields this text stands, oldest first."""
        statement = (
            select(audit)
            .where(audit.c.event.in_(events), audit.c.at_ms >= since_ms)
            .where(audit.c.fields.contains(containing, autoescape=True))
            .order_by(audit.c.seq)
        )
        return await self._records(statement)

    async def _records(self, statement: Select[Any]) -> list[Record]:
        return await self._database.read(lambda connection: [Record(*row) for row in connection.execute(statement)])

    async def verify(self) -> tuple[int, int, str]:
        """Walk the whole chain. Return the number of records, the first bad seq (0: intact) and what is wrong there.

        It has to lead to the last record that this run has written: what the database has of the journal's end may have
        been made to fit.
        """
        known = await self._written()

        def work(connection: Connection) -> tuple[int, int, str]:
            count = connection.execute(select(func.count()).select_from(audit)).scalar() or 0
            chain = _Chain.kept(connection, _START)
            begun, told = f"{chain.seq} {chain.digest}", f"0 {FIRST}"
            for row in connection.execution_options(yield_per=1000).execute(select(audit).order_by(audit.c.seq)):
                before = chain.seq
                if wrong := chain.wrong(row):
                    return count, before + 1, wrong
                if chain.seq == known.seq and chain.digest != known.digest:
                    return count, chain.seq, "the record is not the one that this agent has written"
                if row.event == PRUNED:
                    fields = json.loads(row.fields)
                    told = f"{fields['until_seq']} {fields['digest']}"
            if chain.seq < known.seq:
                return count, chain.seq + 1, f"records are missing at the end: this agent has written {known.seq}"
            head = settings.get(connection, _HEAD)
            if head != f"{chain.seq} {chain.digest}" and count:
                return count, chain.seq + 1, "records are missing at the end"
            if not count and head is not None:
                return 0, 1, "all records are missing"
            return (count, 0, "") if begun == told else (count, 1, "it does not begin where it was pruned last")

        async with self._walking:
            return await self._database.read(work)

    async def _written(self) -> _Chain:
        """The last record that this run has written and that is on disk; 0 if that cannot be told just now."""
        try:
            # In the writer thread, and answered once what was written before is on disk.
            return _Chain(*(await self._database.write(lambda _: self._head) or (0, FIRST)))
        except (StoreFailed, StoreFull, LimitExceeded):
            return _Chain(0, FIRST)

    async def first(self) -> int:
        """The seq of the first record that was not pruned."""
        return await self._database.read(lambda connection: _Chain.kept(connection, _START).seq + 1)

    async def size(self) -> int:
        """Bytes that the database takes, without those that are free in its files."""

        def work(connection: Connection) -> int:
            pages, free, each = (
                int(connection.execute(text(f"PRAGMA {name}")).scalar() or 0)
                for name in ("page_count", "freelist_count", "page_size")
            )
            return (pages - free) * each

        return await self._database.read(work)

    async def prune(self, number: int, at_ms: int) -> int:
        """Take away so many of the oldest records, of those before the last AUDIT_KEPT_LEAST. Return how many went.

        Raises StoreFailed, with all left as it is, if they are not what was written: a break is not made unseen.
        """

        def work(connection: Connection) -> int:
            start, head = _Chain.kept(connection, _START), _Chain.kept(connection, _HEAD)
            chain = _Chain(start.seq, start.digest)
            last = min(start.seq + number, head.seq - AUDIT_KEPT_LEAST)
            if last <= start.seq:
                return 0
            rows = connection.execute(select(audit).where(audit.c.seq <= last).order_by(audit.c.seq))
            for row in rows:
                before = chain.seq
                if wrong := chain.wrong(row):
                    raise StoreFailed(f"the audit journal is broken at {before + 1}: {wrong}; nothing of it is pruned")
            if chain.seq != last:
                raise StoreFailed(f"the audit journal is broken at {chain.seq + 1}: a record is missing")
            connection.execute(audit.delete().where(audit.c.seq <= last))
            settings.put(connection, _START, f"{chain.seq} {chain.digest}")
            fields = {"digest": chain.digest, "records": last - start.seq, "until_seq": last}
            self.append_in(connection, [Event(at_ms, PRUNED, canonical(fields))])
            return last - start.seq

        return await self._database.write(work)
