"""Since when each task type is as it is, and how long daily sums are kept."""

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final, NoReturn

import structlog
from sqlalchemy import Connection

from sojourn.errors import SojournError
from sojourn.operating_limits import USAGE_AGAIN_SECONDS, USAGE_LOOK_SECONDS
from sojourn.oversight.sums import DAY_MS
from sojourn.policy.task_types import TaskType
from sojourn.runtime.clock import Clock, milliseconds
from sojourn.store import settings
from sojourn.store.database import Database
from sojourn.store.usage import UsageTable

log = structlog.get_logger()
_TYPES: Final = "usage_types"  # name -> [digest, milliseconds since the epoch]


class UsageUpkeep:
    """Looks every USAGE_LOOK_SECONDS whether other types are in force, sums wait, or a day's are old."""

    def __init__(
        self,
        database: Database,
        usage: UsageTable,
        types: Callable[[], Mapping[str, TaskType]],
        keep: timedelta,
        clock: Clock,
    ) -> None:
        """`types`: those in force, by their names. `keep`: for how long sums are kept."""
        self.keep = keep
        self._database = database
        self._usage = usage
        self._types = types
        self._clock = clock
        self._noted: Mapping[str, str] | None = None  # that are on disk
        self._pruned = 0  # up to this day

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        while True:
            try:
                await self.note_types()
                if self._usage.behind:
                    await self._usage.flush()
                await self.prune()
            except SojournError as error:
                log.error("usage_not_kept", reason=error.public, detail=error.detail)
                await asyncio.sleep(USAGE_AGAIN_SECONDS)
            await asyncio.sleep(USAGE_LOOK_SECONDS)

    async def note_types(self) -> None:
        """Note of each type that is another now that it is so from now on. Raise what the store raises."""
        now, types = self._now(), {name: kind.digest for name, kind in self._types().items()}
        if types == self._noted:
            return

        def work(connection: Connection) -> None:
            before = _read(connection)
            kept = {name: before.get(name) for name in types}
            after = {
                name: since if since is not None and since[0] == types[name] else (types[name], now)
                for name, since in kept.items()
            }
            settings.put(connection, _TYPES, json.dumps(after))

        await self._database.write(work)
        self._noted = types

    async def in_force(self) -> dict[str, int]:
        """Since when each type is as it is, in milliseconds since the epoch."""
        found = await self._database.read(_read)
        return {name: since for name, (_, since) in found.items()}

    async def prune(self) -> int:
        """Take away the sums of days that are too old. Return how many rows went. Raise what the store raises."""
        day = (self._now() - int(self.keep.total_seconds() * 1_000)) // DAY_MS
        if day <= self._pruned:
            return 0
        gone = await self._usage.prune(day)
        self._pruned = day
        if gone:
            log.info("usage_pruned", rows=gone, reason="daily sums are older than audit.usage_keep")
        return gone

    def _now(self) -> int:
        return milliseconds(self._clock.now())


def _read(connection: Connection) -> dict[str, tuple[str, int]]:
    found = json.loads(settings.get(connection, _TYPES) or "{}")
    return {name: (digest, since) for name, (digest, since) in found.items()}
