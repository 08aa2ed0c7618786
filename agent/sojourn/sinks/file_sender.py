"""Kind `file`: lines are appended to a file and on disk before they count as taken; full files are renamed.

A line that a crash has cut short is taken away at the next write: its record was not taken, and comes again. Who moves
the file away, as logrotate does, finds another one begun. The work is done in a thread of its own for each batch, and
none begins while one before it hangs, as on a network file system that does not answer.
"""

import asyncio
import contextlib
import os
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sojourn.errors import InvalidInput
from sojourn.files.trusted import check_owner
from sojourn.sinks.items import Item, lines
from sojourn.sinks.sender import SinkDown, Taken

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK: Final = 64 * 1024
_BEGINNING: Final = b'{"'  # of each line: no other file is taken for one of records, and cut to its last whole line


class FileSender:
    """Appends to the file at `path`."""

    def __init__(self, path: Path, max_bytes: int, files: int, seconds: float) -> None:
        """`max_bytes`: of a file. `files`: full ones that are kept, PATH.1 the newest. `seconds`: for a batch."""
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._seconds = seconds
        self._busy = threading.Lock()
        self._descriptor = -1

    async def send(self, items: Sequence[Item]) -> Taken:
        content = lines(items)
        try:
            async with asyncio.timeout(self._seconds):
                await self._in_thread(lambda: self._append(content))
        except TimeoutError:
            raise SinkDown(f"{self._path} did not take the records in {self._seconds:g} s") from None
        except InvalidInput as error:
            raise SinkDown(f"{self._path}: {error.public}") from error
        except OSError as error:
            raise SinkDown(f"{self._path} cannot be written: {error.strerror}", detail=str(error)) from error
        return Taken()

    async def close(self) -> None:
        if self._busy.acquire(blocking=False):
            try:
                self._let_go()
            finally:
                self._busy.release()

    async def _in_thread(self, work: Callable[[], None]) -> None:
        if not self._busy.acquire(blocking=False):
            raise SinkDown(f"{self._path}: a write of before has not ended")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: Exception | None) -> None:
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(error)

        def run() -> None:
            failed: Exception | None = None
            try:
                work()
            except Exception as error:  # noqa: BLE001  # whoever waits gets it
                failed = error
            finally:
                self._busy.release()
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, failed)

        # Not of a pool: an interpreter that ends would wait for a file system that hangs.
        threading.Thread(target=run, name="sojourn-sink", daemon=True).start()
        await done

    def _append(self, content: bytes) -> None:
        size = self._open()
        if size and size + len(content) > self._max_bytes:
            self._rotate()
            size = self._open()
        try:
            written = memoryview(content)
            while written:
                written = written[os.write(self._descriptor, written) :]
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            self._let_go()
            raise

    def _open(self) -> int:
        """Have the file open that is at the path now. Return its size, without a line that is cut short."""
        with contextlib.suppress(OSError):
            there, ours = os.stat(self._path, follow_symlinks=False), os.fstat(self._descriptor)
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                return ours.st_size
        self._let_go()
        descriptor = os.open(self._path, _FLAGS, 0o600)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidInput("it is not a regular file")
            if status.st_uid != os.geteuid():
                raise InvalidInput(f"it belongs to user {status.st_uid}, and not to the agent's")
            check_owner(status)
            if status.st_size and os.pread(descriptor, len(_BEGINNING), 0) != _BEGINNING:
                raise InvalidInput("it is there, and has something else than records: it was left alone")
            size = _whole_lines(descriptor, status.st_size)
            if size < status.st_size:
                os.ftruncate(descriptor, size)
            self._sync_folder()
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return size

    def _rotate(self) -> None:
        """Rename the full file, and those before it; the oldest goes."""
        self._let_go()
        for number in range(self._files - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._numbered(number), self._numbered(number + 1))
        os.rename(self._path, self._numbered(1))
        self._sync_folder()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _sync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _whole_lines(descriptor: int, size: int) -> int:
    """The size of a file up to behind its last newline."""
    end = size
    while end > 0:
        begin = max(0, end - _BLOCK)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
