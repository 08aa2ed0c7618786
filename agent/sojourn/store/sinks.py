"""How far each sink of the journal is, and the journal as sinks read it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from sojourn.audit.journal import Event, Record
from sojourn.operating_limits import SINK_SCANNED
from sojourn.sinks.items import Item, Passage, SinkState, Wanted
from sojourn.store.audit import ends_in
from sojourn.store.database import Database
from sojourn.store.tables import audit, audit_sinks

_DOCUMENT = ("log", "size", "refused", "gap")


class SinkTable:
    """Reads in threads, and writes in the writer's."""

    def __init__(self, database: Database, append: Callable[[Connection, Sequence[Event]], None]) -> None:
        """`append`: as the journal appends within a write that is under way."""
        self._database = database
        self._append = append

    def load(self) -> dict[str, SinkState]:
        """All sinks that there ever were, by name; in the calling thread, for the start. Raise CannotStart."""

        def work(connection: Connection) -> dict[str, SinkState]:
            rows = connection.execute(select(audit_sinks))
            return {row.name: SinkState(row.name, row.seq, **_document(row.document)) for row in rows}

        return self._database.read_now("sinks of the journal", work)

    def head(self) -> int:
        """The last record of the journal; in the calling thread, for the start. Raise CannotStart."""
        return self._database.read_now("journal", lambda connection: ends_in(connection)[1])

    async def passage(self, seq: int, most: int, wanted: Wanted) -> Passage:
        """The next records behind this one: `most` at most, and as many bytes as are sent at once, or one longer line.

        Raise StoreFailed.
        """
        return await self._database.read(lambda connection: _passage(connection, seq, most, wanted))

    async def save(self, state: SinkState, events: Sequence[Event]) -> None:
        """Write a sink's place, with these records in the same write. Raise StoreFailed, StoreFull, LimitExceeded."""
        kept = asdict(state)
        row = {"seq": state.seq, "document": json.dumps({name: kept[name] for name in _DOCUMENT})}

        def work(connection: Connection) -> None:
            made = insert(audit_sinks).values(name=state.name, **row)
            connection.execute(made.on_conflict_do_update(index_elements=["name"], set_=row))
            self._append(connection, events)

        await self._database.write(work)


def _document(text: str) -> dict[str, int]:
    kept: dict[str, Any] = json.loads(text)
    return {name: int(kept[name]) for name in _DOCUMENT}


def _passage(connection: Connection, seq: int, most: int, wanted: Wanted) -> Passage:
    before, head = ends_in(connection)
    begin = max(seq, before)
    until = min(begin + SINK_SCANNED, head)
    among = select(audit).where(audit.c.seq > begin, audit.c.seq <= until).order_by(audit.c.seq)
    if wanted.include:
        among = among.where(audit.c.event.in_(wanted.include))
    if wanted.exclude:
        among = among.where(audit.c.event.not_in(wanted.exclude))
    items: list[Item] = []
    size, cut = 0, False
    for row in connection.execute(among.limit(most + 1)):
        item = Item.of_record(Record(*row), wanted.lines)
        size += len(item.line) + 1
        cut = len(items) >= most or (bool(items) and size > wanted.lines.batch_bytes)
        if cut:
            break
        items.append(item)
    oldest = connection.execute(select(func.min(audit.c.seq)).where(audit.c.seq > begin)).scalar()
    at_ms = 0 if oldest is None else connection.execute(select(audit.c.at_ms).where(audit.c.seq == oldest)).scalar()
    return Passage(tuple(items), items[-1].seq if cut else until, before + 1, head, at_ms or 0)
