"""What tasks were granted and used, by day: sums of the journal's records, for reports that need not read all of those.

A report may have them counted again from the journal itself, and both are equal.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import structlog
from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, literal_column, select
from sqlalchemy.dialects.sqlite import insert

from sojourn.audit.journal import Event
from sojourn.operating_limits import (
    USAGE_KEYS_AT_HAND,
    USAGE_RECORDS_AT_ONCE,
    USAGE_ROWS_AT_ONCE,
)
from sojourn.oversight.counting import COUNTED, count
from sojourn.oversight.room import DayRoom, Name
from sojourn.oversight.sums import ADDED, DAY_MS, ActionKey, ActionSum, IssuedSum, Sums, TypeKey, TypeSum, Window
from sojourn.store import settings
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.prepared_statements import Prepared
from sojourn.store.tables import audit, usage_actions, usage_entries, usage_keys, usage_types

log = structlog.get_logger()
_SEQ: Final = "usage_seq"  # of the last record whose sums are in the database
_SINCE: Final = "usage_since"  # milliseconds since the epoch: what is older was not counted, or is gone
_ACTION: Final = (*ADDED, "most", "first_ms", "last_ms")
_NAME: Final = ("type", "digest", "workload", "resource", "action")


def _add_action() -> Prepared:
    made, old = insert(usage_actions), usage_actions.c
    never: ColumnElement[int] = literal_column("0")
    ever = [func.nullif(each.first_ms, never) for each in (old, made.excluded)]
    first = func.coalesce(func.min(*ever), *ever, never)  # SQLite's least of two is nothing if one of them is
    greatest = {name: func.max(old[name], made.excluded[name]) for name in ("most", "last_ms")}
    added = {name: old[name] + made.excluded[name] for name in ADDED}
    made = made.on_conflict_do_update(index_elements=["day", "key"], set_={**added, **greatest, "first_ms": first})
    return Prepared(made, ("day", "key", *_ACTION))


def _put_type() -> Prepared:
    made = insert(usage_types)
    made = made.on_conflict_do_update(index_elements=["day", "key"], set_={"document": made.excluded.document})
    return Prepared(made, ("day", "key", "document"))


def _add_entry() -> Prepared:
    made, old = insert(usage_entries), usage_entries.c
    changed = {
        "number": old.number + made.excluded.number,
        "last_ms": func.max(old.last_ms, made.excluded.last_ms),
    }
    made = made.on_conflict_do_update(index_elements=["entry_id"], set_=changed)
    return Prepared(made, ("entry_id", "number", "last_ms"))


_ADD_ACTION, _PUT_TYPE, _ADD_ENTRY = _add_action(), _put_type(), _add_entry()
_ADD_KEY: Final = Prepared(usage_keys.insert(), _NAME)
_FIND_KEY: Final = Prepared(
    select(usage_keys.c.id).where(*(usage_keys.c[name] == bindparam(f"the_{name}") for name in _NAME))
)
_FIND_TYPE: Final = Prepared(
    select(usage_types.c.document).where(
        usage_types.c.day == bindparam("the_day"), usage_types.c.key == bindparam("the_key")
    )
)


class UsageTable:
    """Adds up in the writer thread, which alone writes here; reads in threads.

    Records are counted in memory as they are written; `flush` writes the sums, with the number of the last record that
    they are of. Where records stand behind that one in the journal, which a run before has left or a write that failed,
    they are counted first: so nothing is counted twice, and nothing is lost. What is wrong with sums hinders no record.
    """

    def __init__(self, database: Database, journal: AuditTable) -> None:
        self._database = database
        self._connection: Connection | None = None  # of the write that is under way
        self._room = DayRoom(known=self._names_of)
        self._ids: dict[Name, int] = {}
        self._waiting = Sums(room=self._room)  # counted, and not written
        self._seq: int | None = None  # of the last record that was counted; None: the database has to be asked
        journal.on_written(self._count)
        journal.on_prune(self._write_all)
        database.on_rollback(self._forget)

    def _forget(self) -> None:
        """Records that were counted are not in the journal, or sums that were written are not there: look again."""
        self._room.forget()
        self._ids.clear()
        self._waiting = Sums(room=self._room)
        self._seq = None

    # --- writing, in the writer thread ------------------------------------------------------------------------------

    def _count(self, connection: Connection, events: Sequence[Event], seq: int) -> None:
        """Count records that are being written, `seq` the last of them."""
        if self._seq is None:  # they are found in the journal, as are those before them
            return
        self._connection = connection
        for each in events:
            if each.event in COUNTED:
                fields = json.loads(each.fields) if each.said is None else each.said
                count(self._waiting, each.at_ms, each.event, fields)
        self._seq = seq

    def _write_all(self, connection: Connection) -> None:
        """Write the sums of all records that the journal has."""
        while not self._write(connection):
            pass

    def _write(self, connection: Connection) -> bool:
        """Write what was counted. False: the journal has more records, which are to be counted first."""
        self._connection = connection
        seq, whole = (self._seq, True) if self._seq is not None else self._catch_up(connection)
        self._seq = None  # until all of this is written
        sums, self._waiting = self._waiting, Sums(room=self._room)
        if sums.unread:
            log.error("usage_not_counted", records=sums.unread, reason="records are not as the agent writes them")
        self._add_types(connection, sums.types)
        if sums.actions:
            rows = [self._action_row(connection, key, each) for key, each in sums.actions.items()]
            _ADD_ACTION.run_for_each(connection, rows)
        if sums.entries:
            issued = sums.entries.items()
            _ADD_ENTRY.run_for_each(
                connection, [{"entry_id": name, "number": of.number, "last_ms": of.last_ms} for name, of in issued]
            )
        settings.put(connection, _SEQ, str(seq))
        self._seq = seq if whole else None
        return whole

    def _catch_up(self, connection: Connection) -> tuple[int, bool]:
        """Count the next records that an earlier run, or a write that failed, has left uncounted. Return the last of
        them, and whether the journal has no more.
        """
        seq = int(settings.get(connection, _SEQ) or 0)
        self._waiting = Sums(room=self._room)
        return _count_next(connection, self._waiting, seq)

    def _add_types(self, connection: Connection, types: Mapping[TypeKey, TypeSum]) -> None:
        rows = []
        for key, more in types.items():
            number = self._id(connection, (*key[1:], "", ""))
            kept = _FIND_TYPE.run(connection, {"the_day": key.day, "the_key": number}).fetchone()
            if kept is not None:
                more.merge(TypeSum.read(json.loads(kept[0])))
            rows.append({"day": key.day, "key": number, "document": json.dumps(more.document())})
        if rows:
            _PUT_TYPE.run_for_each(connection, rows)

    def _action_row(self, connection: Connection, key: ActionKey, each: ActionSum) -> dict[str, int]:
        number = self._id(connection, key[1:])
        return {"day": key.day, "key": number, **{name: getattr(each, name) for name in _ACTION}}

    def _id(self, connection: Connection, name: Name) -> int:
        found = self._ids.get(name)
        if found is None:
            row = _FIND_KEY.run(connection, {f"the_{of}": each for of, each in zip(_NAME, name, strict=True)})
            kept = row.fetchone() or [_ADD_KEY.run(connection, dict(zip(_NAME, name, strict=True))).lastrowid]
            found = kept[0]
            if len(self._ids) >= USAGE_KEYS_AT_HAND:
                self._ids.clear()
            self._ids[name] = int(found)
        return int(found)

    def _names_of(self, day: int) -> Iterable[Name]:
        """Those that a day has sums of already."""
        assert self._connection is not None
        for table in (usage_types, usage_actions):
            wanted = select(*(usage_keys.c[name] for name in _NAME)).join(table, table.c.key == usage_keys.c.id)
            for row in self._connection.execute(wanted.where(table.c.day == day, usage_keys.c.type != "")):
                yield row.type, row.digest, row.workload, row.resource, row.action

    async def prune(self, day: int) -> int:
        """Take away the sums of days before this one. Return how many rows went."""
        gone = 0
        while number := await self._database.write(lambda connection: self._prune(connection, day)):
            gone += number
        return gone

    def _prune(self, connection: Connection, day: int) -> int:
        for table in (usage_actions, usage_types):
            oldest = connection.execute(select(func.min(table.c.day))).scalar()
            if oldest is None or oldest >= day:
                continue
            old = select(table.c.key).where(table.c.day == oldest).limit(USAGE_ROWS_AT_ONCE).scalar_subquery()
            done = connection.execute(delete(table).where(table.c.day == oldest, table.c.key.in_(old)))
            return done.rowcount
        since = int(settings.get(connection, _SINCE) or 0)
        if since and since < day * DAY_MS:
            settings.put(connection, _SINCE, str(day * DAY_MS))
            used = [select(table.c.key) for table in (usage_actions, usage_types)]
            connection.execute(delete(usage_keys).where(*(usage_keys.c.id.not_in(each) for each in used)))
            connection.execute(delete(usage_entries).where(usage_entries.c.last_ms < day * DAY_MS))
            self._forget()  # what waits is counted again, as its names may be gone
        return 0

    async def begin(self, now_ms: int) -> None:
        """Count what an earlier run has left. Records of a release that did not count are left alone, so that nobody
        waits for a year of them: all is counted from now on.
        """

        def work(connection: Connection) -> None:
            if settings.get(connection, _SINCE) is None:
                newest = connection.execute(select(func.max(audit.c.seq))).scalar()
                settings.put(connection, _SEQ, str(newest or 0))
                settings.put(connection, _SINCE, str(now_ms))

        await self._database.write(work)
        await self.flush()

    @property
    def behind(self) -> bool:
        """Whether something is counted that is not on disk."""
        waiting = self._waiting
        return self._seq is None or bool(waiting.types or waiting.actions or waiting.entries or waiting.unread)

    # --- reading ----------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Return when all that the journal has is counted and on disk. Raise what the store raises."""
        whole = False
        while not whole:
            whole = await self._database.write(self._write)

    async def since_ms(self) -> int:
        """From when on all is counted; 0: nothing was yet."""
        return await self._database.read(lambda connection: int(settings.get(connection, _SINCE) or 0))

    async def read(self, wanted: Window) -> Sums:
        """The sums of a window."""
        return await self._database.read(lambda connection: _read(connection, wanted))

    async def entries(self) -> dict[str, IssuedSum]:
        """What was issued by each entry's ID."""

        def work(connection: Connection) -> dict[str, IssuedSum]:
            rows = connection.execute(select(usage_entries))
            return {row.entry_id: IssuedSum(row.number, row.last_ms) for row in rows}

        return await self._database.read(work)

    async def recount(self, wanted: Window, behind: int) -> Sums:
        """The same from the journal, of its records behind one: some of them at a time."""
        found, room, seq = Sums(), DayRoom(), behind

        def page(connection: Connection) -> bool:
            nonlocal seq
            sums = Sums(room=room)
            seq, whole = _count_next(connection, sums, seq)
            found.merge(sums, wanted)
            return whole

        whole = False
        while not whole:
            whole = await self._database.read(page)
        return found


def _count_next(connection: Connection, sums: Sums, behind: int) -> tuple[int, bool]:
    """Count the next records behind one, USAGE_RECORDS_AT_ONCE of them at most. Return the last of them, and whether
    the journal has no more.
    """
    wanted = select(audit.c.seq, audit.c.at_ms, audit.c.event, audit.c.fields).where(audit.c.seq > behind)
    rows = connection.execute(wanted.order_by(audit.c.seq).limit(USAGE_RECORDS_AT_ONCE)).all()
    for row in rows:
        if row.event in COUNTED:
            count(sums, row.at_ms, row.event, json.loads(row.fields))
    return (rows[-1].seq if rows else behind), len(rows) < USAGE_RECORDS_AT_ONCE


def _read(connection: Connection, wanted: Window) -> Sums:
    found, of_days = Sums(), Sums()
    for table in (usage_types, usage_actions):
        among = [table.c.day >= wanted.since, table.c.day <= wanted.until]
        columns = (column for column in table.c if column.name != "key")
        named = select(*columns, *(usage_keys.c[name] for name in _NAME)).join(
            usage_keys, usage_keys.c.id == table.c.key
        )
        for row in connection.execute(named.where(*among)):
            _take(of_days, row)
    found.merge(of_days, wanted)
    return found


def _take(sums: Sums, row: Any) -> None:
    key = TypeKey(row.day, row.type, row.digest, row.workload)
    if hasattr(row, "document"):
        sums.types[key] = TypeSum.read(json.loads(row.document))
    else:
        found = ActionSum(*(getattr(row, name) for name in _ACTION))
        sums.actions[ActionKey(*key, row.resource, row.action)] = found
