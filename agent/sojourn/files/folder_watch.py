"""Following a folder of files: when it has changed and has come to rest, what it says is read."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Read = TypeVar("Read")
Sight = tuple[object, ...]  # what a look from outside shows: equal while nothing has changed


class WatchedFolder:
    """Knows what a folder looked like when it was last read. Everything is looked at in a thread: disks may be slow."""

    def __init__(self, folder: Path, is_ours: Callable[[str], bool], most: int) -> None:
        """`is_ours` says by its name whether a file counts; no more than `most` files are looked at."""
        self.folder = folder
        self._is_ours = is_ours
        self._most = most
        self._taken: Sight | None = None

    async def changed(self, read: Callable[[], Read], settled_seconds: float, *, again: bool) -> Read | None:
        """What `read` returns, if the folder is another than the last time, or `again`.

        None if it is the same, or if it has changed within `settled_seconds` or while it was read: it may be half
        written, and the next look comes soon.
        """
        seen = await asyncio.to_thread(self.sight)
        if seen == self._taken and not again:
            return None
        await asyncio.sleep(settled_seconds)
        found = await asyncio.to_thread(read)
        if await asyncio.to_thread(self.sight) != seen:
            return None
        self._taken = seen
        return found

    def names(self) -> list[str]:
        """The names of the files that count, sorted. Raises OSError."""
        return sorted(name for name in os.listdir(self.folder) if self._is_ours(name))

    def sight(self) -> Sight:
        try:
            status = os.stat(self.folder)
            names = self.names()
        except OSError as error:
            return (error.errno,)
        paths = [os.path.join(self.folder, name) for name in names[: self._most]]
        return (status.st_dev, status.st_ino, status.st_mode, status.st_uid, *names, *map(_sight_of, paths))


def _sight_of(path: str) -> Sight:
    try:
        status = os.stat(path)
    except OSError as error:
        return (error.errno,)
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mode, status.st_uid, *times)
