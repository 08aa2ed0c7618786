"""Keeps the audit journal within a size: its oldest records make room for new ones."""

import asyncio
import os
from pathlib import Path
from typing import NoReturn

import structlog

from sojourn.errors import SojournError
from sojourn.limits import (
    AUDIT_DISK_SHARE,
    AUDIT_LOOK_SECONDS,
    AUDIT_MAX_BYTES,
    AUDIT_PRUNE_PAUSE_SECONDS,
    AUDIT_PRUNED_AT_ONCE,
    AUDIT_PRUNED_SHARE,
)
from sojourn.runtime.clock import Clock
from sojourn.store.audit import AuditTable

log = structlog.get_logger()


def most_of(folder: Path) -> int:
    """How large the database in a folder may be, where nobody has said so."""
    room = os.statvfs(folder)
    return min(AUDIT_MAX_BYTES, int(room.f_blocks * room.f_frsize * AUDIT_DISK_SHARE))


class Pruning:
    """Looks every AUDIT_LOOK_SECONDS whether the database is larger than it may be."""

    def __init__(self, journal: AuditTable, max_bytes: int, clock: Clock) -> None:
        self._journal = journal
        self.max_bytes = max_bytes
        self._clock = clock

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except SojournError as error:
                log.error("journal_not_pruned", reason=error.public, detail=error.detail)
            await asyncio.sleep(AUDIT_LOOK_SECONDS)

    async def look(self) -> int:
        """Prune if the database is too large, until it is somewhat less. Return how many records went.

        Raises what the journal raises: StoreFailed if it is broken, and then nothing goes.
        """
        gone = 0
        size = await self._journal.size()
        if size <= self.max_bytes:
            return gone
        while size > self.max_bytes * (1 - AUDIT_PRUNED_SHARE):
            pruned = await self._journal.prune(AUDIT_PRUNED_AT_ONCE, int(self._clock.now().timestamp() * 1000))
            gone += pruned
            if not pruned:  # what takes the room is something else
                break
            await asyncio.sleep(AUDIT_PRUNE_PAUSE_SECONDS)
            size = await self._journal.size()
        reason = "the database has reached audit.max_bytes, and the oldest records of the journal made room"
        log.warning("journal_pruned", reason=reason, records=gone, max_bytes=self.max_bytes)
        return gone
