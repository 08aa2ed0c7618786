"""Checkpoints of the journal's logs that a time-stamp authority has stamped, with its answers (RFC 3161).

They lie beside the database, `timestamps/LOGID/AT-SIZE.note` and `.tsr` in the data folder: seconds since the epoch,
and leaves. The answer is the last of the two that is written.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sojourn.audit.cosigned_notes import id_of
from sojourn.errors import StoreFailed
from sojourn.files import atomic
from sojourn.operating_limits import STAMP_MAX_BYTES, STAMPS_KEPT
from sojourn.tlog.notes import NOTE_MAX_BYTES

FOLDER: Final = "timestamps"
_NAME: Final = re.compile(r"([0-9]{1,12})-([0-9]{1,19})\.tsr")


@dataclass(frozen=True, slots=True)
class StampFile:
    """One stamp: when, of how many leaves, and its name without the ending."""

    at: int
    size: int
    path: Path


class StampedNotes:
    """Blocks. Nothing of it is believed: stamps are verified before `keep`, and by whoever is shown them."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the data folder."""
        self._folder = folder / FOLDER

    def of(self, origin: str) -> list[StampFile]:
        """The stamps of a log, that of the fewest leaves first: as they were written."""
        try:
            paths = list((self._folder / id_of(origin)).iterdir())
        except OSError:
            return []
        named = [(_NAME.fullmatch(each.name), each.with_suffix("")) for each in paths]
        found = [StampFile(int(name[1]), int(name[2]), path) for name, path in named if name is not None]
        return sorted(found, key=lambda each: (each.size, each.at))

    def all(self) -> dict[str, list[StampFile]]:
        """Those of all logs, by their IDs."""
        try:
            names = [each.name for each in self._folder.iterdir()]
        except OSError:
            return {}
        return {name: self.of(name) for name in names}

    def keep(self, origin: str, at: int, size: int, note: bytes, reply: bytes) -> None:
        """Have a stamp on disk; of too many those of the fewest leaves go. Raise StoreFailed."""
        folder = self._folder / id_of(origin)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic.write(folder / f"{at}-{size}.note", note)
            atomic.write(folder / f"{at}-{size}.tsr", reply)
            for each in self.of(origin)[:-STAMPS_KEPT]:
                for end in (".tsr", ".note"):
                    each.path.with_suffix(end).unlink(missing_ok=True)
        except OSError as error:
            raise StoreFailed("a time stamp cannot be written", detail=str(error)) from error

    def written_at(self, stamp: StampFile) -> float:
        """When a stamp was written, by this machine's clock, seconds since the epoch; 0: it is gone."""
        try:
            return stamp.path.with_suffix(".tsr").stat().st_mtime
        except OSError:
            return 0.0

    def read(self, stamp: StampFile) -> tuple[bytes, bytes] | None:
        """Its note and its answer; None: they are gone."""
        try:
            with stamp.path.with_suffix(".note").open("rb") as note, stamp.path.with_suffix(".tsr").open("rb") as reply:
                return note.read(NOTE_MAX_BYTES), reply.read(STAMP_MAX_BYTES)
        except OSError:
            return None
