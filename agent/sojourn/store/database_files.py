"""The files of a SQLite database that is open: whether they are still the ones at their paths.

SQLite goes on in a file that was deleted, moved, or replaced by another: what is written then is acknowledged, and gone
at the next start.
"""

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sojourn.errors import StoreFailed


class DatabaseFiles:
    """The database, its log and its index, as they are when this is made. `close` after all others have closed them."""

    def __init__(self, path: Path) -> None:
        """The database at `path` is in WAL mode. Raises OSError and sqlite3.Error."""
        # While one connection has read something SQLite keeps log and index: only the last to close removes them.
        self._connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, check_same_thread=False)
        self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._were = {each: _identity(each) for each in (path, *(Path(f"{path}-{end}") for end in ("wal", "shm")))}

    def check(self) -> None:
        """Raise StoreFailed unless all are where they were."""
        for path, was in self._were.items():
            try:
                found = _identity(path)
            except FileNotFoundError:
                found = None
            except OSError as error:
                raise StoreFailed("the database cannot be seen", detail=f"{path}: {error.strerror}") from error
            if found != was:
                done = "is gone" if found is None else "is another file now"
                raise StoreFailed(
                    f"the database's file {str(path)!r} {done}: put back what was there, or restart the agent, which"
                    " loses what only it has"
                )

    def close(self) -> None:
        self._connection.close()


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
