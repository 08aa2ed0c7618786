"""A mark outside of the data folder: how far its agent had come, so that a folder that is put back whole is noticed.

It lies on what is not put back with the folder: another disk, or a share. It follows the journal within moments.

A machine can be put back while it runs, with its memory. Then the mark is not what its agent wrote last, and that agent
ends: it leaves the mark as it is, so that the next start knows.
"""

import asyncio
import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import structlog

from sojourn.backup.known_mark import KnownMark
from sojourn.errors import CannotStart, InvalidInput, SojournError
from sojourn.files import atomic, trusted
from sojourn.jose.canonical_json import exactly
from sojourn.limits import MARK_AGAIN_SECONDS, MARK_IDLE_SECONDS, MARK_LOOKS, MARK_MAX_BYTES, MARK_SECONDS
from sojourn.store.restorations import RestorationTable
from sojourn.store.snapshot import Head

log = structlog.get_logger()
NAME = "mark"


@dataclass(frozen=True, slots=True)
class Marked:
    """How far an agent had come. `since`: when the mark was begun, seconds since the epoch."""

    data_dir: str
    since: int
    epoch: int
    head: Head


class Mark:
    """The mark of one data folder, in a folder of its own."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        self.path = folder / NAME
        self._data_dir = data_dir.absolute()
        self._say_so = KnownMark(self._data_dir).say_so
        self.since = 0
        self._ours: list[Marked] = []  # what may lie there: what was read or written last, and what may be written
        self._writing = threading.Lock()

    def read(self) -> Marked | None:
        """What it says; None: there is none. Raise CannotStart, also for the mark of another data folder."""
        found = self._read()
        if found is not None:
            self.since, self._ours = found.since, [found]
        return found

    def _read(self) -> Marked | None:
        if not self.path.parent.is_dir():
            raise CannotStart(
                f"there is no folder {str(self.path.parent)!r} for the mark: make it for the agent's user"
            )
        if not self.path.exists():
            return None
        try:
            said: dict[str, Any] = exactly(dict, json.loads(trusted.read(self.path, MARK_MAX_BYTES)))
            head = Head(exactly(int, said["seq"]), exactly(str, said["digest"]), exactly(int, said["at_ms"]))
            since, epoch = exactly(int, said["since"]), exactly(int, said["epoch"])
            found = Marked(exactly(str, said["data_dir"]), since, epoch, head)
        except (InvalidInput, KeyError, ValueError) as error:
            raise CannotStart(
                f"the mark {str(self.path)!r} cannot be read, and so it cannot be known whether the data folder was put"
                f" back: remove it and `{self._say_so}`, and revoke again what must stay revoked",
                detail=str(error),
            ) from error
        if found.data_dir != str(self._data_dir):
            raise CannotStart(
                f"the mark {str(self.path)!r} is of the data folder {found.data_dir!r}: give each agent a mark_dir of"
                f" its own; if the folder was moved, remove the mark and `{self._say_so}`"
            )
        return found

    def write(self, epoch: int, head: Head, now: float) -> None:
        """Write it at a start, whatever lies there. Raise OSError."""
        with self._writing:
            self._write(epoch, head, now)

    def follow(self, epoch: int, head: Head, now: float) -> bool:
        """Have it say that. False, and it is left alone: it is not what was written last, or says more already.

        Raise CannotStart if it is not there or cannot be read, and OSError.
        """
        with self._writing:
            found = self._read()
            if found is None:
                raise CannotStart(f"the mark {str(self.path)!r} is not there any more: mount what it lies on")
            if found not in self._ours or found.head.seq > head.seq:
                return False
            if found.head.seq == head.seq and found.head.digest != head.digest:
                return False
            self._ours = [found]
            if (epoch, head) != (found.epoch, found.head):
                self._write(epoch, head, now)
            return True

    def _write(self, epoch: int, head: Head, now: float) -> None:
        self.since = self.since or int(now)
        said = {
            "data_dir": str(self._data_dir),
            "since": self.since,
            "epoch": epoch,
            "seq": head.seq,
            "digest": head.digest,
            "at_ms": head.at_ms,
        }
        written = Marked(str(self._data_dir), self.since, epoch, head)
        self._ours.append(written)  # first: what fails may lie there nonetheless
        atomic.write(self.path, json.dumps(said).encode() + b"\n")
        self._ours = [written]


class MarkUpkeep:
    """Has the mark follow the journal."""

    def __init__(self, mark: Mark, table: RestorationTable, epoch: int) -> None:
        self._mark = mark
        self._table = table
        self._epoch = epoch
        self._wake = asyncio.Event()
        self._overtaken = False  # the mark is not what this agent wrote last
        self.fault = ""  # why the mark does not follow; empty: it does

    def heard(self, _event: str, _fields: object) -> None:
        """Something is being recorded."""
        self._wake.set()

    async def run(self) -> NoReturn:
        """Follow until cancelled. What is recorded is on disk some time after it was heard of: so look again.

        Raise CannotStart once the mark is not what this agent wrote last, also while nothing is recorded.
        """
        looks = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(MARK_AGAIN_SECONDS if looks else MARK_IDLE_SECONDS):
                    await self._wake.wait()
                    looks = MARK_LOOKS
            self._wake.clear()
            await asyncio.sleep(MARK_SECONDS)
            await self.look()
            if self._overtaken:
                raise CannotStart(self.fault)
            looks = max(0, looks - 1)

    async def look(self) -> None:
        """Write how far the journal is, if that is new. What fails is told, and tried again with what comes next."""
        if self._overtaken:
            return
        try:
            head = await self._table.head_now()
            if await asyncio.to_thread(self._mark.follow, self._epoch, head, head.at_ms / 1000):
                self.fault = ""
                return
        except (OSError, SojournError) as error:
            self.fault = error.public if isinstance(error, SojournError) else str(error.strerror)
            self._wake.set()
        else:
            self._overtaken = True
            self.fault = (
                f"the mark {str(self._mark.path)!r} is not what this agent wrote last: the machine was put back while"
                " it ran, or two agents have one mark. This one ends, and its next start is one on a folder that was"
                " put back"
            )
        log.error("mark_not_written", reason=self.fault, file=str(self._mark.path))
