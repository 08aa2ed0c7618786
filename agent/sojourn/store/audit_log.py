"""The signed log of the audit journal in the database: its logs, the tiles of their trees, and their last checkpoints.

Leaves are records, and are not kept a second time. Tiles and checkpoint are written together, behind the records: what
a crash leaves out is made again from them.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from sojourn.audit.journal import Event, Record
from sojourn.audit.log_state import LogState
from sojourn.store.database import Database
from sojourn.store.tables import audit, audit_logs, audit_rotations, audit_tiles
from sojourn.tlog.tiles import WIDTH, Tiles

T = TypeVar("T")
_TILE = select(audit_tiles.c.hashes)
_DOCUMENT = ("reason", "epoch", "vkey", "begun_ms", "previous")


def covered(connection: Connection, otherwise: int) -> int:
    """The last record that is in the tree of the log that is signed now; `otherwise` where there is no log."""
    row = connection.execute(select(audit_logs).order_by(audit_logs.c.number.desc()).limit(1)).first()
    return otherwise if row is None else int(row.first_seq + row.size - 1)


def prune(connection: Connection, last: int, needed: Callable[[str], frozenset[int]] = lambda _: frozenset()) -> None:
    """Take away the tiles of leaves that are gone, up to the record `last`: nothing that is left is proved by them.

    `needed`: of a log by its origin, those of the tiles of leaves that stay all the same.
    """
    logs = list(connection.execute(select(audit_logs).order_by(audit_logs.c.number)))
    for row in logs:
        full = (last - row.first_seq + 1) // WIDTH
        if full <= 0:
            continue
        of_log = audit_tiles.c.log == row.number
        if row.first_seq + row.size - 1 <= last and row is not logs[-1]:
            connection.execute(delete(audit_tiles).where(of_log))
        else:
            gone = (audit_tiles.c.level == 0) & (audit_tiles.c.number < full)
            gone &= audit_tiles.c.number.not_in(needed(row.origin))
            connection.execute(delete(audit_tiles).where(of_log & gone))


def tile_in(connection: Connection, log: int, level: int, number: int) -> bytes:
    """The hashes of a tile. Raise KeyError if it is not there."""
    of = (audit_tiles.c.log == log) & (audit_tiles.c.level == level) & (audit_tiles.c.number == number)
    found: bytes | None = connection.execute(_TILE.where(of)).scalar()
    if found is None:
        raise KeyError(f"tile {level}/{number} is not there")
    return found


def records_in(connection: Connection, behind: int, until: int) -> list[Record]:
    """The records behind one, up to another."""
    among = (audit.c.seq > behind) & (audit.c.seq <= until)
    return [Record(*row) for row in connection.execute(select(audit).where(among).order_by(audit.c.seq))]


class AuditLogTable:
    """Reads in threads, and writes in the writer's."""

    def __init__(self, database: Database, append: Any) -> None:
        """`append(connection, events)`: as the journal appends within a write that is under way."""
        self._database = database
        self._append = append

    async def logs(self) -> list[LogState]:
        """All logs that there were, the one that is signed now last."""
        return await self._database.read(logs_in)

    async def records(self, behind: int, until: int) -> list[Record]:
        """The records behind one, up to another."""
        return await self._database.read(lambda connection: records_in(connection, behind, until))

    async def with_tiles(self, number: int, work: Callable[[Tiles], T]) -> T:
        """Run `work` in a thread, with the tiles of a log's tree as they are at one moment. Raise KeyError."""

        def tiles_of(connection: Connection) -> Tiles:
            return lambda level, index: tile_in(connection, number, level, index)

        return await self._database.read(lambda connection: work(tiles_of(connection)))

    def first_seq(self) -> int:
        """The first record of the journal that there is, 1 if there is none; in the calling thread."""
        return self._database.read_now(
            "journal", lambda connection: int(connection.execute(select(func.min(audit.c.seq))).scalar() or 1)
        )

    async def begin(self, log: LogState, events: Sequence[Event]) -> None:
        """Have a log signed from now on, and record it with these events. Raise StoreFailed, StoreFull."""
        document = json.dumps({name: getattr(log, name) for name in _DOCUMENT})
        row = {"number": log.number, "origin": log.origin, "first_seq": log.first_seq, "document": document}

        def work(connection: Connection) -> None:
            connection.execute(audit_logs.insert().values(size=0, checkpoint="", **row))
            self._append(connection, events)

        await self._database.write(work)

    async def save(self, log: LogState, tiles: Sequence[tuple[int, int, bytes]], rotation: str = "") -> None:
        """Write a checkpoint with the tiles that are new or wider by it; `rotation`: the proof of one, to be kept.

        Raise StoreFailed, StoreFull, LimitExceeded.
        """

        def work(connection: Connection) -> None:
            for level, number, hashes in tiles:
                made = insert(audit_tiles).values(log=log.number, level=level, number=number, hashes=hashes)
                connection.execute(
                    made.on_conflict_do_update(
                        index_elements=["log", "level", "number"], set_={"hashes": made.excluded.hashes}
                    )
                )
            document = json.dumps({name: getattr(log, name) for name in _DOCUMENT})
            connection.execute(
                audit_logs.update()
                .where(audit_logs.c.number == log.number)
                .values(size=log.size, checkpoint=log.checkpoint, document=document)
            )
            if rotation:
                connection.execute(audit_rotations.insert().values(log=log.number, size=log.size, proof=rotation))

        await self._database.write(work)

    async def rotations(self, number: int) -> list[str]:
        """The proofs of the rotations of a log's key, the oldest first."""
        wanted = select(audit_rotations.c.proof).where(audit_rotations.c.log == number).order_by(audit_rotations.c.size)
        return await self._database.read(lambda connection: [str(row.proof) for row in connection.execute(wanted)])


def logs_in(connection: Connection) -> list[LogState]:
    """All logs of a database, the one that is signed now last."""
    return [_state(row) for row in connection.execute(select(audit_logs).order_by(audit_logs.c.number))]


def _state(row: Row[Any]) -> LogState:
    kept = json.loads(row.document)
    return LogState(
        number=row.number,
        origin=row.origin,
        first_seq=row.first_seq,
        size=row.size,
        checkpoint=row.checkpoint,
        **{name: kept[name] for name in _DOCUMENT},
    )
