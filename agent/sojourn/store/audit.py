"""The audit journal in the database.

Its oldest records may be pruned. Where it begins then is kept apart from it, and recorded in it: `journal_pruned` names
the last record that is gone, and its digest, from which the rest goes on. The newest of those stays.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select, text

from sojourn.audit.journal import FIRST, Event, Record, digest_of
from sojourn.errors import LimitExceeded, StoreFailed, StoreFull
from sojourn.jose.canonical_json import canonical
from sojourn.limits import AUDIT_KEPT_LEAST, AUDIT_LISTED
from sojourn.runtime.hooks import Hooks
from sojourn.store import audit_index, audit_log, policy_sets, settings
from sojourn.store.database import Database
from sojourn.store.prepared_statements import Prepared
from sojourn.store.retention import Retention
from sojourn.store.settings import AUDIT_HEAD
from sojourn.store.tables import audit

_START = "audit_start"
PRUNED = "journal_pruned"
NOTHING_HELD = Retention()
_INSERT = Prepared(audit.insert(), ("seq", "at_ms", "event", "fields", "digest"))


@dataclass(frozen=True, slots=True)
class JournalFigures:
    """How large the journal is. `oldest_ms`: when its first record was written, 0 if there is none. `pruned`: records,
    in all the time that the database has been there. `bytes`: of the whole database, without what is free in its files.
    """

    records: int = 0
    oldest_ms: int = 0
    pruned: int = 0
    bytes: int = 0


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


def ends_in(connection: Connection) -> tuple[int, int]:
    """The last record that was pruned, and the last one that was written; 0: there is none."""
    return _Chain.kept(connection, _START).seq, _Chain.kept(connection, AUDIT_HEAD).seq


class AuditTable:
    """Appends in the writer thread, which alone knows the head of the chain.

    Records of writes that share a commit go into the journal together, as the last that is done before it.
    """

    def __init__(self, database: Database, *, kept_least: int = AUDIT_KEPT_LEAST) -> None:
        """`kept_least`: how many of the newest records are never pruned."""
        self._database = database
        self._kept_least = kept_least
        self._head: tuple[int, str] | None = None
        self._walking = asyncio.Lock()  # one at a time: while a thread walks others wait for the interpreter
        self._rows: list[dict[str, Any]] = []  # that are to be written with the head
        self._events: list[Event] = []  # those of the rows
        self.written_seq = 0  # of the last record that was written, and may not be on disk yet; 0: it is not known
        # Called in the writer thread, within a write: with the records that it has, and the number of the last; and
        # before the oldest go.
        self.on_written: Hooks[[Connection, Sequence[Event], int]] = Hooks()
        self.on_prune: Hooks[[Connection]] = Hooks()
        # Gives the tiles of leaves that stay when the leaves are pruned, of a log by its origin. In the writer thread.
        self.tiles_needed: Callable[[str], frozenset[int]] = lambda _: frozenset()
        database.on_finish(self._write)
        database.on_rollback(self._forget)

    def _forget(self) -> None:
        self._head = None
        self._rows.clear()
        self._events.clear()
        self.written_seq = 0

    def append_in(self, connection: Connection, events: Sequence[Event]) -> None:
        """Append within a write that is under way, so that the record and what it records are one."""
        if self._head is None:
            # What was remembered, not what lies there: if the journal was cut short, the gap stays to be seen.
            kept = _Chain.kept(connection, AUDIT_HEAD)
            self._head = (kept.seq, kept.digest)
        seq, digest = self._head
        for event in events:
            seq += 1
            digest = digest_of(digest, seq, event)
            self._rows.append(
                {"seq": seq, "at_ms": event.at_ms, "event": event.event, "fields": event.fields, "digest": digest}
            )
        self._events.extend(events)
        self._head = (seq, digest)

    def _write(self, connection: Connection) -> None:
        if self._rows and self._head is not None:
            _INSERT.run_for_each(connection, self._rows)
            seq, digest = self._head
            settings.put(connection, AUDIT_HEAD, f"{seq} {digest}")  # apart from the journal: cutting that short shows
            self.written_seq = seq
            events, self._rows, self._events = self._events, [], []
            self.on_written.tell(connection, events, seq)

    async def append(self, events: Sequence[Event]) -> None:
        await self._database.write(lambda connection: self.append_in(connection, events))

    async def tail(self, limit: int) -> list[Record]:
        """The last `limit` records, oldest first."""
        newest = select(audit).order_by(audit.c.seq.desc()).limit(min(limit, AUDIT_LISTED))
        return await self._database.read(lambda connection: [Record(*row) for row in connection.execute(newest)][::-1])

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
            head = settings.get(connection, AUDIT_HEAD)
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

    async def digest_before(self, seq: int) -> str:
        """The digest that a record follows on: of the record before it, or of the last one that was pruned."""

        def work(connection: Connection) -> str:
            before: str | None = connection.execute(select(audit.c.digest).where(audit.c.seq == seq - 1)).scalar()
            return _Chain.kept(connection, _START).digest if before is None else before

        return await self._database.read(work)

    async def size(self) -> int:
        """Bytes that the database takes, without those that are free in its files."""
        return await self._database.read(_size)

    async def figures(self) -> JournalFigures:
        """How large it is now, by what its ends say: no record is counted."""

        def work(connection: Connection) -> JournalFigures:
            start, head = _Chain.kept(connection, _START), _Chain.kept(connection, AUDIT_HEAD)
            oldest = connection.execute(select(audit.c.at_ms).where(audit.c.seq == start.seq + 1)).scalar()
            return JournalFigures(max(0, head.seq - start.seq), oldest or 0, start.seq, _size(connection))

        return await self._database.read(work)

    async def held(self, retention: Retention, now_ms: int) -> tuple[int, int]:
        """How many records may not be pruned now, and how many of those are always kept."""

        def work(connection: Connection) -> tuple[int, int]:
            start, head = ends_in(connection)
            return head - max(start, retention.until(connection, now_ms, head)), min(head - start, self._kept_least)

        return await self._database.read(work)

    async def prune(self, number: int, at_ms: int, retention: Retention = NOTHING_HELD) -> int:
        """Take away so many of the oldest records, of those before the last that are always kept. Return how many went.

        None goes that is not in the signed log's tree yet, or that is held. `at_ms`: now. Raises StoreFailed, with all
        left as it is, if they are not what was written: a break is not made unseen.
        """

        def work(connection: Connection) -> int:
            start, head = _Chain.kept(connection, _START), _Chain.kept(connection, AUDIT_HEAD)
            chain = _Chain(start.seq, start.digest)
            last = min(start.seq + number, head.seq - self._kept_least, audit_log.covered(connection, head.seq))
            last = min(last, retention.until(connection, at_ms, head.seq))
            if retention.keep_ms:  # times go back where a clock did: then what is held begins before what is not
                young = select(func.min(audit.c.seq)).where(
                    audit.c.seq <= last, audit.c.at_ms >= retention.oldest(at_ms)
                )
                last = min(last, (connection.execute(young).scalar() or last + 1) - 1)
            if last <= start.seq:
                return 0
            self.on_prune.tell(connection)
            rows = connection.execute(select(audit).where(audit.c.seq <= last).order_by(audit.c.seq))
            for row in rows:
                before = chain.seq
                if wrong := chain.wrong(row):
                    raise StoreFailed(f"the audit journal is broken at {before + 1}: {wrong}; nothing of it is pruned")
            if chain.seq != last:
                raise StoreFailed(f"the audit journal is broken at {chain.seq + 1}: a record is missing")
            connection.execute(audit.delete().where(audit.c.seq <= last))
            settings.put(connection, _START, f"{chain.seq} {chain.digest}")
            audit_log.prune(connection, last, self.tiles_needed)
            policy_sets.prune(connection, last)
            audit_index.prune(connection, last)
            fields = {"digest": chain.digest, "records": last - start.seq, "until_seq": last}
            self.append_in(connection, [Event(at_ms, PRUNED, canonical(fields))])
            return last - start.seq

        return await self._database.write(work)


def _size(connection: Connection) -> int:
    pages, free, each = (
        int(connection.execute(text(f"PRAGMA {name}")).scalar() or 0)
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * each
