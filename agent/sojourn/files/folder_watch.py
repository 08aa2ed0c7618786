"""Following a folder: when it has changed and has come to rest, what its files say is brought into force."""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import structlog

from sojourn.errors import InvalidConfig, InvalidPolicy, SojournError, joined
from sojourn.limits import FOLLOWED_LOOK_SECONDS, FOLLOWED_RETRY_SECONDS, FOLLOWED_SETTLED_SECONDS

log = structlog.get_logger()
INTERNAL: Final = "internal error; the log has it"
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


class FolderFollower(ABC):
    """Keeps something that of a folder. `fault` is why what the folder says is not in force, empty if it is.

    What cannot be used leaves what is in force as it is, and is told once. It is read again every
    FOLLOWED_RETRY_SECONDS: it may be good although no file has changed.
    """

    def __init__(self, folder: Path, boot: Callable[[], float], failed: str) -> None:
        """`boot`: seconds on the boot clock; `failed`: the event by which the log has what nobody foresaw."""
        self.folder = Path(os.path.abspath(folder))
        self.fault = ""
        self._boot = boot
        self._failed = failed
        self._retry_at = 0.0
        self._wake = asyncio.Event()
        self.on_read: Callable[[], object] = lambda: None  # told when all that was wished was read, whatever came of it

    def wake(self) -> None:
        """Have the folder read soon, whether or not it has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Look at the folder again and again, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(FOLLOWED_LOOK_SECONDS):
                    await self._wake.wait()
            again = self._wake.is_set()
            self._wake.clear()
            await self.look(settled_seconds=FOLLOWED_SETTLED_SECONDS, again=again)
            if again and not self._wake.is_set():
                self.on_read()

    async def look(self, *, settled_seconds: float = 0.0, again: bool = False) -> None:
        """Bring the folder into force if it has changed, and has not changed further for `settled_seconds`."""
        try:
            await self._look(settled_seconds, again)
        except Exception as error:  # noqa: BLE001  # `_refuse` tells of it
            self._refuse(error)

    @property
    def _due(self) -> bool:
        """Whether the folder is to be read again although it has not changed."""
        return bool(self.fault) and self._boot() >= self._retry_at

    @abstractmethod
    async def _look(self, settled_seconds: float, again: bool) -> None:
        """As `look`. Raise whatever is wrong with what the folder says."""

    @abstractmethod
    def _tell(self, fault: str) -> None:
        """Tell the log and the audit why what the folder says is not in force."""

    def _refuse(self, error: Exception) -> None:
        """Tell why what the folder says is not in force: once, and again when the reason is another."""
        fault = self._reason(error)
        self._retry_at = self._boot() + FOLLOWED_RETRY_SECONDS
        if fault != self.fault:
            self.fault = fault
            self._tell(fault)

    def _reason(self, error: Exception) -> str:
        match error:
            case InvalidConfig() | InvalidPolicy():
                return joined(error.faults)
            case SojournError():
                return error.public
        log.error(self._failed, folder=str(self.folder), exc_info=error)
        return INTERNAL


def _sight_of(path: str) -> Sight:
    try:
        status = os.stat(path)
    except OSError as error:
        return (error.errno,)
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mode, status.st_uid, *times)
