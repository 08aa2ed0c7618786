"""What an agent that was killed left in SQLite's write-ahead log.

SQLite itself drops what follows the last whole commit and says nothing. A log that ends in the middle of a write is
what a kill leaves, and nobody was told that this write was done; damage before that is more, so both are reported.
The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

import struct
import sys
from array import array
from dataclasses import dataclass
from pathlib import Path

import structlog

from sojourn.audit.journal import Audit

log = structlog.get_logger()

_HEADER, _FRAME = 32, 24  # bytes
_BIG_ENDIAN_SUMS = {0x377F0682: False, 0x377F0683: True}  # by the magic number
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class TornTail:
    """`kept` bytes of the log are whole commits; the `dropped` bytes after them are not."""

    kept: int
    dropped: int


def report(torn: TornTail | None, audit: Audit) -> None:
    """Say what was dropped: in the log, in `sojourn status`, and in the audit."""
    if torn is not None:
        log.error("journal_torn", reason="the last write was not whole", kept=torn.kept, dropped=torn.dropped)
        audit.note("journal_torn", kept=torn.kept, dropped=torn.dropped)


def torn_tail(database: Path) -> TornTail | None:
    """Read the log beside a database that nobody has open; None: there is none, or all of it is whole. Raises OSError.

    Frames of an earlier round, which lie behind the newest in a log that is used again, are not counted.
    """
    log = database.with_name(database.name + "-wal")
    try:
        data = log.read_bytes()
    except FileNotFoundError:
        return None
    if not data:
        return None
    if len(data) < _HEADER:
        return TornTail(0, len(data))
    magic, _version, page, _checkpoint, *salts = struct.unpack_from(">6I", data)
    sums = _Sums(_BIG_ENDIAN_SUMS.get(magic, True))
    if magic not in _BIG_ENDIAN_SUMS or page < 512 or sums.add(data[:24]) != struct.unpack_from(">2I", data, 24):
        return TornTail(0, len(data))
    place = kept = _HEADER
    while place + _FRAME + page <= len(data):
        _number, commit, *rest = struct.unpack_from(">6I", data, place)
        frame = data[place : place + 8] + data[place + _FRAME : place + _FRAME + page]
        if rest[:2] != salts or sums.add(frame) != tuple(rest[2:]):
            break
        place += _FRAME + page
        kept = place if commit else kept
    dropped = _of_this_round(data, kept, page, salts)
    return TornTail(kept, dropped) if dropped else None


def _of_this_round(data: bytes, start: int, page: int, salts: list[int]) -> int:
    """How many bytes from `start` on were written in the log's present round."""
    ends = start
    for place in range(start, len(data), _FRAME + page):
        salt = data[place + 8 : place + 16]
        if salt == struct.pack(">2I", *salts)[: len(salt)]:
            ends = min(place + _FRAME + page, len(data))
    return ends - start


class _Sums:
    """The two running sums over all that was added, in words of the log's byte order."""

    def __init__(self, big_endian: bool) -> None:
        self._swap = big_endian != (sys.byteorder == "big")
        self._sums = (0, 0)

    def add(self, data: bytes) -> tuple[int, int]:
        words = array("I", data)
        if self._swap:
            words.byteswap()
        first, second = self._sums
        for index in range(0, len(words), 2):
            first = (first + words[index] + second) & _MASK
            second = (second + words[index + 1] + first) & _MASK
        self._sums = (first, second)
        return self._sums
