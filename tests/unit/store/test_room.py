"""room.py: that there is no room on the disk is told by what the error is, and not by how it reads."""

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sojourn.errors import CannotStart
from sojourn.store import database
from sojourn.store.room import NoRoom, is_no_room
from sqlalchemy.exc import OperationalError


def full() -> sqlite3.Error:
    """SQLite's own error for a database that may not grow any more."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA max_page_count = 2")
        connection.execute("CREATE TABLE t (x)")
        with pytest.raises(sqlite3.Error) as raised:
            connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    return raised.value


@pytest.mark.parametrize("error", [
    NoRoom(),
    OSError(errno.ENOSPC, "x"),
    OSError(errno.EDQUOT, "x"),
    full(),
    OperationalError("INSERT", {}, full()),
    sqlite3.OperationalError("database or disk is full"),  # of `Connection.backup`, which says no code
], ids=["ours", "disk", "quota", "sqlite", "sqlalchemy", "text"])  # fmt: skip
def test_no_room(error: Exception) -> None:
    """A full disk, a spent quota, and a database that cannot grow are no room, in whichever error they come."""
    assert is_no_room(error)


@pytest.mark.parametrize("error", [
    OSError(errno.EACCES, "Permission denied", "/srv/full/sojourn.db"),
    sqlite3.OperationalError("unable to open database file: full"),
    OperationalError("SELECT 'full'", {}, sqlite3.OperationalError("no such column: full")),
    ValueError("database or disk is full"),
], ids=["denied", "open", "sqlalchemy", "another"])  # fmt: skip
def test_something_else(error: Exception) -> None:
    """What only has the word in it, as a folder's name may, is none."""
    assert not is_no_room(error)


def test_what_an_operator_reads(tmp_path: Path) -> None:
    """Of a disk without room an operator is told to make some; of another fault, to restore the database."""
    told = [database._unusable(tmp_path / "full.db", each).public for each in (NoRoom(), full(), sqlite3.Error("odd"))]
    room = f"the data folder {str(tmp_path)!r} has no room left: make some"
    assert [room, room] == told[:2]
    assert f"the database {str(tmp_path / 'full.db')!r} cannot be used: odd; restore it" in told[2]
    assert isinstance(database._unusable(tmp_path, NoRoom()), CannotStart)
