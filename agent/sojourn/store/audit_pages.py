"""The audit journal read page by page: what is wanted of it, forward from a record on or backward from its end.

A journal may have a year of records. Each read looks at AUDIT_SCANNED of them at most, by their numbers, so that a
search for what is rare takes long for whoever asks and holds up nobody else. Where nothing but events is asked for, the
index of events tells where the next one is.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select

from sojourn.audit.journal import Record
from sojourn.limits import AUDIT_PAGE, AUDIT_SCANNED
from sojourn.store.database import Database
from sojourn.store.tables import audit

# As an expression, so that the database goes by the index of events and not along all numbers.
_SEQ = audit.c.seq + 0


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which records: those of one of these events, with this text in their fields, of tasks of this type, since then.

    What is empty or 0 leaves none out. `since_ms` is compared with what the clock said as the record was made.
    """

    events: tuple[str, ...] = ()
    containing: str = ""
    type: str = ""
    since_ms: int = 0

    def conditions(self) -> list[ColumnElement[bool]]:
        """What the database is asked. `has` has the last word."""
        made: list[ColumnElement[bool]] = []
        if self.events:
            made.append(audit.c.event.in_(self.events))
        if self.since_ms:
            made.append(audit.c.at_ms >= self.since_ms)
        texts = filter(None, (self.containing, json.dumps(self.type)[1:-1]))
        made.extend(audit.c.fields.contains(text, autoescape=True) for text in texts)
        return made

    @property
    def by_event_alone(self) -> bool:
        return bool(self.events) and not (self.containing or self.type)

    def has(self, fields: Mapping[str, Any]) -> bool:
        """Whether a record with these fields, which fits the conditions, is wanted."""
        return self.type in {"", fields.get("type")}


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

    async def after(self, seq: int, wanted: AuditQuery) -> Page:
        """The next records behind this one, AUDIT_PAGE of them at most."""

        def work(connection: Connection) -> Page:
            first, head = _bounds(connection)
            begin = max(seq, first - 1)
            until = min(begin + AUDIT_SCANNED, head)
            found = _rows(connection, select(audit).order_by(audit.c.seq), begin, until, wanted, AUDIT_PAGE)
            reached = found[-1].seq if len(found) >= AUDIT_PAGE else max(begin, until)
            if not found and reached < head and wanted.by_event_alone:
                ahead = _of_events(wanted).where(reached < _SEQ)
                nearest = connection.execute(ahead.with_only_columns(func.min(_SEQ))).scalar()
                reached = head if nearest is None else nearest - 1
            return Page(_that_has(found, wanted), reached, reached >= head)

        return await self._database.read(work)

    async def before(self, seq: int, low: int, wanted: AuditQuery, most: int) -> Page:
        """The last records up to this one, `most` of them at the most, and none up to `low`."""

        def work(connection: Connection) -> Page:
            first, _ = _bounds(connection)
            bottom = max(low, first - 1)
            begin = max(seq - AUDIT_SCANNED, bottom)
            number = min(most, AUDIT_PAGE)
            found = _rows(connection, select(audit).order_by(audit.c.seq.desc()), begin, seq, wanted, number)
            reached = found[-1].seq - 1 if len(found) >= number else begin
            if not found and reached > bottom and wanted.by_event_alone:
                behind = _of_events(wanted).where(reached >= _SEQ)
                nearest = connection.execute(behind.with_only_columns(func.max(_SEQ))).scalar()
                reached = max(bottom, nearest or 0)
            return Page(_that_has(found[::-1], wanted), reached, reached <= bottom)

        return await self._database.read(work)

    async def last(self) -> int:
        """The number of the newest record; 0 if there is none."""
        return await self._database.read(lambda connection: _bounds(connection)[1])

    async def before_time(self, at_ms: int) -> int:
        """The number of a record before which all are older than this, as far as the clock was never set back.

        Found by halving, as the records' times are in no index of their own.
        """

        def work(connection: Connection) -> int:
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

        return await self._database.read(work)


def _of_events(wanted: AuditQuery) -> Select[Any]:
    return select(audit.c.seq).where(audit.c.event.in_(wanted.events))


def _bounds(connection: Connection) -> tuple[int, int]:
    """The numbers of the first and the last record that there are: 1 and 0 of none."""
    first = connection.execute(select(func.min(audit.c.seq))).scalar()
    last = connection.execute(select(func.max(audit.c.seq))).scalar()
    return first or 1, last or 0


def _rows(
    connection: Connection, statement: Select[Any], behind: int, until: int, wanted: AuditQuery, most: int
) -> list[Record]:
    among = and_(audit.c.seq > behind, audit.c.seq <= until, *wanted.conditions())
    return [Record(*row) for row in connection.execute(statement.where(among).limit(most))]


def _that_has(found: Sequence[Record], wanted: AuditQuery) -> tuple[Record, ...]:
    if not wanted.type:
        return tuple(found)
    return tuple(record for record in found if wanted.has(json.loads(record.fields)))
