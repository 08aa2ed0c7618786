"""SHA-256 of program files: computed once for each content, and never taken for that of another one."""

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import Final

from sojourn.limits import PROGRAM_DIGESTS_KEPT, PROGRAM_SETTLED_SECONDS
from sojourn.quota.lru import Lru

from sojourn_attestors.kernel.bootclock import boot_seconds
from sojourn_attestors.kernel.filestatus import FileStatus

_BLOCK: Final = 1024 * 1024


class Changed(Exception):
    """The file was written to while it was read."""


class GivenUp(Exception):
    """Whoever was to compute it does not. Somebody else may."""


@dataclass(frozen=True, slots=True)
class _Kept:
    digest: str
    offset: float  # of the wall clock from the boot clock then


class Digests:
    """What was computed, by what the file was then. May be used by several threads.

    A digest is used again only for a file of which each change shows in its times: see FileStatus.timed. Such times are
    only as fine as the kernel's tick, and come again if the clock is set back: so a file that has just been changed, or
    one before which the clock was set back, is read anew.
    """

    def __init__(self, wall: Callable[[], float] = time.time, boot: Callable[[], float] = boot_seconds) -> None:
        """`wall` and `boot`: clocks in seconds."""
        self._wall = wall
        self._boot = boot
        self._lock = Lock()
        self._kept: Lru[tuple[int, ...], _Kept] = Lru(PROGRAM_DIGESTS_KEPT)
        self._computing: dict[tuple[int, ...], Future[str]] = {}

    def known(self, file: FileStatus) -> str | None:
        """The lower-case hex of a digest that needs no reading."""
        if not self._settled(file):
            return None
        with self._lock:
            kept = self._kept.get(file.key)
            if kept is None or self._offset() < kept.offset - PROGRAM_SETTLED_SECONDS / 2:
                return None
            return kept.digest

    def begin(self, file: FileStatus) -> tuple[Future[str], bool]:
        """The digest to come, and whether the caller is the one to `compute` it. Nobody is, if another does already."""
        settled = self._settled(file)
        with self._lock:
            if settled and (running := self._computing.get(file.key)) is not None:
                return running, False
            result: Future[str] = Future()
            result.set_running_or_notify_cancel()  # from now on whoever waits for it cannot cancel it
            if settled:
                self._computing[file.key] = result
            return result, True

    def compute(self, file: FileStatus, descriptor: int, result: "Future[str]") -> None:
        """Read an open file, close it, and set the result: Changed or OSError if that cannot be had."""
        settled = self._settled(file)
        try:
            try:
                digest = self._read(descriptor, file.size)
                if FileStatus.of(descriptor).key != file.key:
                    raise Changed
            finally:
                os.close(descriptor)
        except (OSError, Changed, MemoryError) as error:
            self.give_up(file, result, error)
            return
        with self._lock:
            if settled:
                self._kept.put(file.key, _Kept(digest, self._offset()))
        self._end(file, result)
        result.set_result(digest)

    def give_up(self, file: FileStatus, result: "Future[str]", error: BaseException | None = None) -> None:
        """For the one that was to compute it, and does not: for a reason of the file's, or for one of its own."""
        self._end(file, result)
        result.set_exception(error or GivenUp())

    def _end(self, file: FileStatus, result: "Future[str]") -> None:
        with self._lock:
            if self._computing.get(file.key) is result:
                del self._computing[file.key]

    def _settled(self, file: FileStatus) -> bool:
        """Whether the next change of the file will have another time than the last one."""
        return file.timed and file.ctime_ns < (self._wall() - PROGRAM_SETTLED_SECONDS) * 1e9

    def _offset(self) -> float:
        return self._wall() - self._boot()

    @staticmethod
    def _read(descriptor: int, size: int) -> str:
        digest = hashlib.sha256()
        offset = 0
        while offset <= size and (block := os.pread(descriptor, _BLOCK, offset)):
            digest.update(block)
            offset += len(block)
        return digest.hexdigest()
