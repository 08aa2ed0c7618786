"""A database as a file that nobody has open for good: a copy of it, and what it says of itself.

Neither needs SQLAlchemy: commands use them beside an agent, or without one. Paths are of databases that SQLite made.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sojourn.audit.journal import FIRST
from sojourn.errors.oauth import DatabaseDamaged
from sojourn.limits import COPY_PAGES, COPY_PAUSE_SECONDS

BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of an audit journal. `at_ms` is 0 if the record itself is not there."""

    seq: int = 0
    digest: str = FIRST
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """What a database says of itself. `readable_by`: the oldest schema whose releases can work on it."""

    schema: str
    readable_by: str
    epoch: int
    head: Head


def copy(path: Path, to: Path) -> None:
    """Copy the database at `path` as it is at one moment, also one that an agent writes meanwhile, into a new file.

    It is on disk when this returns. Raise sqlite3.Error and OSError; what was made by then is left to the caller.
    """
    os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    with closing(_connect(path)) as source, closing(sqlite3.connect(to, isolation_level=None)) as target:
        target.execute("PRAGMA synchronous=OFF")
        target.execute("PRAGMA journal_mode=OFF")
        # In one reading transaction: without it each write of the agent would have the copy begin again.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(target, pages=COPY_PAGES, progress=lambda *_: time.sleep(COPY_PAUSE_SECONDS))
        target.execute("PRAGMA journal_mode=DELETE")  # with a log whoever looks at it would leave files beside it
    descriptor = os.open(to, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def state(path: Path, *, whole: bool = False) -> DatabaseState:
    """What the database at `path` says of itself; `whole`: after all of its pages were looked at.

    Raise DatabaseDamaged, also for what is no database of Sojourn's.
    """
    with _reading(path) as connection:
        if whole:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise DatabaseDamaged("the database is damaged", detail=str(found))
        return _state(connection)


def record_digest(path: Path, seq: int) -> str | None:
    """The digest of a record of the journal; None: it was pruned, or has not been written. Raise DatabaseDamaged."""
    with _reading(path) as connection:
        row = connection.execute("SELECT digest FROM audit WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else str(row[0])


def events_behind(path: Path, seq: int) -> dict[str, int]:
    """How many records of which events stand behind a record, by their names. Raise DatabaseDamaged."""
    with _reading(path) as connection:
        rows = connection.execute(
            "SELECT event, count(*) FROM audit WHERE seq > ? GROUP BY event ORDER BY event", (seq,)
        ).fetchall()
    return {str(event): int(count) for event, count in rows}


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(_connect(path)) as connection:
            yield connection
    except (sqlite3.Error, UnicodeError, ValueError) as error:
        raise DatabaseDamaged("the database is damaged, or is not Sojourn's", detail=str(error)) from error


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def readable_by(schema: str, said: str | None) -> str:
    """The oldest schema whose releases can work on a database of `schema`, by what that says of it: "SCHEMA OLDEST".

    What was said of another schema counts for nothing.
    """
    of, _, oldest = (said or "").partition(" ")
    return oldest if of == schema and oldest.isdecimal() else schema


def _state(connection: sqlite3.Connection) -> DatabaseState:
    [(schema,)] = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    names = ("epoch", "audit_head", "readable_by")
    kept = dict(connection.execute("SELECT name, value FROM settings WHERE name IN (?, ?, ?)", names).fetchall())
    seq, digest = str(kept.get("audit_head", f"0 {FIRST}")).split(" ")
    row = connection.execute("SELECT at_ms FROM audit WHERE seq = ?", (int(seq),)).fetchone()
    head = Head(int(seq), digest, int(row[0]) if row else 0)
    oldest = readable_by(str(schema), kept.get("readable_by"))
    return DatabaseState(str(schema), oldest, int(kept.get("epoch", 0)), head)
