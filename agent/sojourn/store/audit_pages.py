"""The audit journal read page by page: what is wanted of it, forward from a record on or backward from its end.

A journal may have a year of records. What most of it has is known from its index (`store/audit_index.py`); the records
that are not indexed are looked through, AUDIT_SCANNED at most in a read. So a search for what is rare holds up nobody.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select

from sojourn.audit.events import DENIALS
from sojourn.audit.journal import Record
from sojourn.audit.searchable import BY, EVENT, PERSON, SVID, TASK, TYPE, WORKLOAD, Key, keys_of
from sojourn.limits import AUDIT_BLOCKS, AUDIT_PAGE, AUDIT_SCANNED
from sojourn.store.audit_index import BLOCK, candidates, indexed_until, places_in, term_of
from sojourn.store.database import Database
from sojourn.store.tables import audit

_EVER_MS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which records are wanted. What is empty or 0 leaves none out.

    `events` and `people`: one of these. `task`: its ID stands somewhere in the record. `by`: who asked for it, or
    called. `denied`: refusals alone. `svid`: of its issue, or of its entry's SVIDs. `containing`: this text stands in
    the fields, and no index knows of it. `since_ms` and `until_ms` (none that is as late) are compared with what the
    clock said as the record was made.
    """

    events: tuple[str, ...] = ()
    containing: str = ""
    type: str = ""
    since_ms: int = 0
    until_ms: int = 0
    task: str = ""
    workload: str = ""
    by: str = ""
    people: tuple[str, ...] = ()
    denied: bool = False
    svid: str = ""

    @property
    def keys(self) -> tuple[tuple[Key, ...], ...]:
        """What a record has to have: one of each of these."""
        single = ((TASK, self.task), (TYPE, self.type), (WORKLOAD, self.workload), (BY, self.by), (SVID, self.svid))
        several = (
            tuple((EVENT, each) for each in self.events),
            tuple((EVENT, each) for each in sorted(DENIALS)) if self.denied else (),
            tuple((PERSON, each) for each in self.people),
        )
        return (*filter(None, several), *((key,) for key in single if key[1]))

    @property
    def of_all(self) -> bool:
        """Whether no record is left out."""
        return not (self.keys or self.containing or self.since_ms or self.until_ms)

    def conditions(self) -> list[ColumnElement[bool]]:
        """What the database is asked where records are looked through. `has` has the last word."""
        made: list[ColumnElement[bool]] = []
        if self.since_ms:
            made.append(audit.c.at_ms >= self.since_ms)
        if self.until_ms:
            made.append(audit.c.at_ms < self.until_ms)
        if self.containing:
            made.append(audit.c.fields.contains(self.containing, autoescape=True))
        for keys in self.keys:
            texts = [text for _, text in keys]
            if keys[0][0] == EVENT:
                made.append(audit.c.event.in_(texts))
            elif len(texts) == 1:
                made.append(func.instr(audit.c.fields, json.dumps(texts[0])[1:-1]) > 0)
        return made

    def has(self, record: Record) -> bool:
        """Whether a record that fits the conditions is wanted."""
        if not self.since_ms <= record.at_ms < (self.until_ms or _EVER_MS):
            return False
        wanted = self.keys
        if all(keys[0][0] == EVENT for keys in wanted):
            return all((EVENT, record.event) in keys for keys in wanted)
        found = keys_of(record.event, record.fields)
        return all(not found.isdisjoint(keys) for keys in wanted)


@dataclass(frozen=True, slots=True)
class Page:
    """Records, oldest first, and up to where the journal has been looked at. `end`: there is no more there now."""

    records: tuple[Record, ...]
    seq: int
    end: bool


class AuditPages:
    """Reads the journal. Nothing is kept between two reads: whoever is slow costs nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def after(self, seq: int, wanted: AuditQuery, most: int = 0) -> Page:
        """The next records behind this one, AUDIT_PAGE of them at most, or `most` if that is less."""

        def work(connection: Connection) -> Page:
            first, head = _bounds(connection)
            begin = max(seq, first - 1)
            if begin >= head:
                return Page((), max(begin, head), end=True)
            found, reached = _Look(connection, wanted, min(most or AUDIT_PAGE, AUDIT_PAGE)).forward(begin, head)
            return Page(tuple(found), reached, reached >= head)

        return await self._database.read(work)

    async def before(self, seq: int, low: int, wanted: AuditQuery, most: int) -> Page:
        """The last records up to this one, `most` of them at the most, and none up to `low`."""

        def work(connection: Connection) -> Page:
            first, head = _bounds(connection)
            bottom, top = max(low, first - 1), min(seq, head)
            if top <= bottom:
                return Page((), bottom, end=True)
            found, reached = _Look(connection, wanted, min(most, AUDIT_PAGE)).backward(bottom, top)
            return Page(tuple(found[::-1]), reached, reached <= bottom)

        return await self._database.read(work)

    async def newest(self, most: int, wanted: AuditQuery, seq: int | None = None, low: int = 0) -> list[Record]:
        """The last records that are wanted, `most` of them at the most, oldest first: of those up to `seq` (None: of
        all), and none up to `low`.
        """
        found: list[Record] = []
        seq = await self.last() if seq is None else seq
        while len(found) < most:
            page = await self.before(seq, low, wanted, most - len(found))
            found, seq = [*page.records, *found], page.seq
            if page.end:
                break
        return found

    async def of_events(self, events: Collection[str], since_ms: int, key: Key) -> list[Record]:
        """All records of these events since a time that are found by this, an SVID or a workload, oldest first."""
        what, text = key
        svid, workload = (text, "") if what == SVID else ("", text)
        wanted = AuditQuery(tuple(events), since_ms=since_ms, svid=svid, workload=workload)
        found: list[Record] = []
        page = Page((), 0, end=False)
        while not page.end:
            page = await self.after(page.seq, wanted)
            found += page.records
        return found

    async def last(self) -> int:
        """The number of the newest record; 0 if there is none."""
        return await self._database.read(lambda connection: _bounds(connection)[1])

    async def before_time(self, at_ms: int) -> int:
        """The number of a record before which all are older than this, as far as the clock was never set back.

        Found by halving, as the records' times are in no index of their own.
        """
        return await self._database.read(lambda connection: before_time_in(connection, at_ms))


def before_time_in(connection: Connection, at_ms: int) -> int:
    """As `AuditPages.before_time`."""
    low, high = _bounds(connection)
    low -= 1  # the answer lies from here up to `high`
    while low < high:
        middle = (low + high + 1) // 2
        at = connection.execute(
            select(audit.c.at_ms).where(audit.c.seq <= middle).order_by(audit.c.seq.desc()).limit(1)
        ).scalar()
        if at is not None and at < at_ms:
            low = middle
        else:
            high = middle - 1
    return low


class _Look:
    """One look for what is wanted, on one connection: a part of the way, and up to where it came."""

    def __init__(self, connection: Connection, wanted: AuditQuery, most: int) -> None:
        self._connection = connection
        self._wanted = wanted
        self._most = most
        by_index = not (wanted.containing or wanted.of_all)
        self._indexed = indexed_until(connection) if by_index else 0

    def forward(self, low: int, high: int) -> tuple[list[Record], int]:
        """Records behind `low` up to `high`, lowest first."""
        if low < self._indexed:
            first = (low + 1) // BLOCK
            stop = min(first + AUDIT_BLOCKS, min(high, self._indexed) // BLOCK + 1)
            until = min(high, stop * BLOCK - 1)
            found = self._by_index(range(first, stop), low, until, descending=False)
        else:
            until = min(low + AUDIT_SCANNED, high)
            found = self._looked_through(select(audit).order_by(audit.c.seq), low, until)
        return found, found[-1].seq if len(found) >= self._most else until

    def backward(self, low: int, high: int) -> tuple[list[Record], int]:
        """Records up to `high` behind `low`, highest first."""
        if high > self._indexed:
            bottom = max(high - AUDIT_SCANNED, low, self._indexed)
            found = self._looked_through(select(audit).order_by(audit.c.seq.desc()), bottom, high)
        else:
            last = high // BLOCK
            first = max(last - AUDIT_BLOCKS + 1, (low + 1) // BLOCK)
            bottom = max(low, first * BLOCK - 1)
            found = self._by_index(range(first, last + 1), bottom, high, descending=True)
        return found, found[-1].seq - 1 if len(found) >= self._most else bottom

    def _looked_through(self, statement: Select[Any], behind: int, until: int) -> list[Record]:
        among = and_(audit.c.seq > behind, audit.c.seq <= until, *self._wanted.conditions())
        rows = self._connection.execute(statement.where(among))
        return self._wanted_of(Record(*row) for row in rows)

    def _by_index(self, numbers: range, behind: int, until: int, *, descending: bool) -> list[Record]:
        terms = [[term_of(key) for key in keys] for keys in self._wanted.keys]
        between_ms = (self._wanted.since_ms, self._wanted.until_ms or _EVER_MS)
        found = candidates(self._connection, terms, numbers, between_ms, descending=descending)
        seqs = (number * BLOCK + place for number, bits in found for place in places_in(bits, descending=descending))
        return self._wanted_of(self._records((seq for seq in seqs if behind < seq <= until), descending=descending))

    def _records(self, seqs: Iterable[int], *, descending: bool) -> Iterable[Record]:
        order = audit.c.seq.desc() if descending else audit.c.seq
        rest = iter(seqs)
        while some := list(islice(rest, self._most)):
            for row in self._connection.execute(select(audit).where(audit.c.seq.in_(some)).order_by(order)):
                yield Record(*row)

    def _wanted_of(self, records: Iterable[Record]) -> list[Record]:
        return list(islice(filter(self._wanted.has, records), self._most))


def _bounds(connection: Connection) -> tuple[int, int]:
    """The numbers of the first and the last record that there are: 1 and 0 of none."""
    first = connection.execute(select(func.min(audit.c.seq))).scalar()
    last = connection.execute(select(func.max(audit.c.seq))).scalar()
    return first or 1, last or 0
