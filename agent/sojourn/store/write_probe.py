"""A small write where there was none of late: so a disk that refuses is noticed, and one that was mended too."""

import asyncio
from typing import NoReturn

from sojourn.errors import SojournError
from sojourn.limits import STORE_IDLE_SECONDS, STORE_LOOK_SECONDS
from sojourn.store import settings
from sojourn.store.database import Database

NAME = "write_probe"  # of the setting that is written


class WriteProbe:
    """Looks every STORE_LOOK_SECONDS whether the database is still known to take writes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(STORE_LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Write if the last write was refused, or if there was none for STORE_IDLE_SECONDS."""
        health = self._database.health
        if not health.fault and health.idle_seconds < STORE_IDLE_SECONDS:
            return
        try:
            await self._database.write(lambda connection: settings.put(connection, NAME, "1"))
        except SojournError:
            return  # the database's health says so by now, and whoever has something to write is told
