"""Keeps the audit journal within a size: its oldest records make room for new ones, but for those that are held."""

import asyncio
import os
from pathlib import Path
from typing import NoReturn

import structlog

from sojourn.audit.journal_room import JournalRoom
from sojourn.errors import SojournError
from sojourn.limits import (
    AUDIT_DISK_SHARE,
    AUDIT_LOOK_SECONDS,
    AUDIT_MAX_BYTES,
    AUDIT_PRUNE_PAUSE_SECONDS,
    AUDIT_PRUNED_AT_ONCE,
    AUDIT_PRUNED_SHARE,
)
from sojourn.operating_limits import AUDIT_LOOK_SOON_SECONDS, ROOM_SOON_SHARE
from sojourn.runtime.clock import Clock, milliseconds
from sojourn.store.audit import NOTHING_HELD, AuditTable, JournalFigures
from sojourn.store.retention import Retention

log = structlog.get_logger()


def most_of(folder: Path) -> int:
    """How large the database in a folder may be, where nobody has said so."""
    room = os.statvfs(folder)
    return min(AUDIT_MAX_BYTES, int(room.f_blocks * room.f_frsize * AUDIT_DISK_SHARE))


class Pruning:
    """Looks every AUDIT_LOOK_SECONDS whether the database is larger than it may be.

    `retention`: what is not pruned all the same. `room`: is told how much that is.
    """

    def __init__(
        self,
        journal: AuditTable,
        max_bytes: int,
        clock: Clock,
        retention: Retention = NOTHING_HELD,
        room: JournalRoom | None = None,
    ) -> None:
        self._journal = journal
        self.max_bytes = max_bytes
        self._clock = clock
        self.retention = retention
        self.room = room or JournalRoom(clock)
        self.seen = JournalFigures()  # at the last look

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except SojournError as error:
                log.error("journal_not_pruned", reason=error.public, detail=error.detail)
            soon = self.room.full or self.room.held >= ROOM_SOON_SHARE
            await asyncio.sleep(AUDIT_LOOK_SOON_SECONDS if soon else AUDIT_LOOK_SECONDS)

    async def look(self) -> int:
        """Prune if the database is too large, until it is somewhat less. Return how many records went.

        Raises what the journal raises: StoreFailed if it is broken, and then nothing goes.
        """
        self.seen = await self._journal.figures()
        gone = await self._prune(self.seen.bytes) if self.seen.bytes > self.max_bytes else 0
        if gone:
            self.seen = await self._journal.figures()
            reason = "the database has reached audit.max_bytes, and the oldest records of the journal made room"
            log.warning("journal_pruned", reason=reason, records=gone, max_bytes=self.max_bytes)
        await self._judge()
        return gone

    async def _prune(self, size: int) -> int:
        gone = 0
        while size > self.max_bytes * (1 - AUDIT_PRUNED_SHARE):
            pruned = await self._journal.prune(AUDIT_PRUNED_AT_ONCE, self._now_ms(), self.retention)
            gone += pruned
            if not pruned:  # what takes the room is something else, or is held
                break
            await asyncio.sleep(AUDIT_PRUNE_PAUSE_SECONDS)
            size = await self._journal.size()
        return gone

    async def _judge(self) -> None:
        """Tell how much of what the database may have is held, and whether that is all of it."""
        if not self.retention.holds:
            self.room.judge(0.0, full=False)
            return
        held, least = await self._journal.held(self.retention, self._now_ms())
        share = held / max(1, self.seen.records) * self.seen.bytes / self.max_bytes
        self.room.judge(share, full=self.seen.bytes > self.max_bytes and held > least)

    def _now_ms(self) -> int:
        return milliseconds(self._clock.now())
