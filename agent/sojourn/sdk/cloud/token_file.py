"""A file that has a token of the task, and is kept fresh: for programs that read one and cannot ask."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sojourn.errors import InvalidInput, SojournError
from sojourn.files import atomic
from sojourn.limits import LOCAL_FILE_LEAST_SECONDS, LOCAL_FILE_RETRY_SECONDS

_log: Final = logging.getLogger("sojourn.cloud")
Get = Callable[[], Awaitable[tuple[str, datetime]]]


def reserve(name: str) -> Path:
    """Make the file, empty and of mode 0600. Raise InvalidInput if it is there already, or cannot be made."""
    path = Path(name).absolute()
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise InvalidInput(f"the file {str(path)!r} for a token cannot be made: {error.strerror}") from error
    return path


class Sink:
    """Writes what `get` gives, with its end: first before anybody reads, then at half of its life, whole each time.

    What cannot be had any more is taken away, so that nobody takes an old one for a good one.
    """

    def __init__(self, path: Path, get: Get) -> None:
        self._path = path
        self._get = get

    async def first(self) -> float:
        """Write it. Return after how many seconds it is to be written anew. Raise what `get` raises."""
        text, until = await self._get()
        atomic.write(self._path, text.encode())
        return max((until - datetime.now(UTC)).total_seconds() / 2, LOCAL_FILE_LEAST_SECONDS)

    async def keep(self, seconds: float) -> None:
        """Write it again and again; the first time after `seconds`. Never returns."""
        while True:
            await asyncio.sleep(seconds)
            try:
                seconds = await self.first()
            except (SojournError, OSError) as error:
                self.remove()
                _log.warning("the token in %s could not be renewed: %s", self._path, error)
                seconds = LOCAL_FILE_RETRY_SECONDS

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
