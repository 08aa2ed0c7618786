"""Real databases in a test's folder, and a writer thread that waits."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sojourn.store.database import Database, open_sqlite


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    """A real SQLite database, closed afterwards."""
    database = open_sqlite(path)
    try:
        yield database
    finally:
        database.close()


class BlockedWriter:
    """Within it the writer thread is busy with a write that does nothing, so that what is written meanwhile waits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._busy, self._go_on = threading.Event(), threading.Event()

    async def __aenter__(self) -> Self:
        self._write = asyncio.ensure_future(self._database.write(self._wait))
        await asyncio.to_thread(self._busy.wait, 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)  # so that what was asked for has been handed over
        self._go_on.set()
        await self._write

    def _wait(self, _connection: Any) -> None:
        self._busy.set()
        self._go_on.wait(20)
