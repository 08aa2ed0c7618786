"""A small file that decides something, read anew when it has changed.

A file that cannot be used gives nothing, not what it had before: it may have been changed to take something away.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from sojourn.errors import SojournError, Unavailable
from sojourn.files import trusted
from sojourn.limits import CONFIG_MAX_BYTES, FOLLOWED_SETTLED_SECONDS

Read = TypeVar("Read")


class FollowedFile(Generic[Read]):
    """What one file says now."""

    def __init__(self, path: Path, what: str, read: Callable[[str], Read], unusable: Callable[[str], object]) -> None:
        """`what`: its name in a sentence. `read` raises a SojournError; `unusable` is told of each new fault."""
        self.path = path
        self._what = what
        self._parse = read
        self._unusable = unusable
        self._fault = ""
        self._read: Read | None = None
        self._seen: tuple[int, ...] | None = None
        self._turn = asyncio.Lock()

    async def current(self) -> Read:
        """What the file says now. Raise Unavailable if it cannot be used."""
        fault = await self.look()
        if fault or self._read is None:
            raise Unavailable(f"{self._what} cannot be read; the agent's log has why", detail=fault)
        return self._read

    async def look(self) -> str:
        """Read the file if it has changed, and return why it cannot be used; empty if it can."""
        async with self._turn:
            before = self._fault
            await asyncio.to_thread(self._look)
            if self._fault and self._fault != before:
                self._unusable(self._fault)
            return self._fault

    def _look(self) -> None:
        seen = self._sight()
        if seen and seen == self._seen:
            return
        # A file that has just changed may change again within the same tick of the file system's clock.
        settled = bool(seen) and time.time_ns() - seen[-1] > FOLLOWED_SETTLED_SECONDS * 1e9
        self._seen = seen if settled else None
        try:
            self._read, self._fault = self._parse(trusted.read(self.path, CONFIG_MAX_BYTES)), ""
        except SojournError as error:
            self._read, self._fault = None, error.public

    def _sight(self) -> tuple[int, ...]:
        try:
            status = os.stat(self.path)
        except OSError:
            return ()
        whose = (status.st_dev, status.st_ino, status.st_uid, status.st_gid, status.st_mode)
        return (*whose, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
