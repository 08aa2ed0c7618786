"""The start of an agent on a data folder that is not as its last run has left it: nothing of before verifies then.

What tells of it: the note of a restore; the number of the last start, beside the database; the mark outside of the
folder, also when it is gone. Each step may be broken off, and is done again at the next start: what tells of it is
changed last.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog

from sojourn.audit.journal import Audit
from sojourn.backup import last_start, staging
from sojourn.backup.known_mark import KNOWN, KnownMark
from sojourn.backup.mark import Mark, Marked
from sojourn.errors import CannotStart
from sojourn.files import atomic
from sojourn.files.data_folder import EPOCH
from sojourn.limits import LOST_EPOCH_SECONDS, LOST_EPOCHS, LOST_EPOCHS_SINCE
from sojourn.runtime.clock import Clock
from sojourn.store.restorations import Replaced, RestorationTable

log = structlog.get_logger()
RESTORED, LOST = "database_restored", "database_lost"
UNKNOWN: Final = (
    *("entries", "foreign bundles", "revocations", "switches", "approvals", "reviews", "facts", "credentials"),
    *("journal", "signed events"),
)
_WHY: Final = {
    "restore": "a backup was restored",
    "database": "the database is older than the last run",
    "folder": "the data folder was put back: the mark outside of it has gone on",
    "mark_gone": "the mark outside of the data folder is gone, and with it what tells whether that was put back",
    LOST: "there are keys of an earlier run, or a mark, and was no database: entries, revocations, switches that were"
    " off and the journal are gone",
}
_SINCE = (
    ": what was registered, revoked, switched off and journalled since is forgotten, and what must stay revoked is to"
    " be revoked again"
)


@dataclass(frozen=True, slots=True)
class Restoration:
    """What a start has found. Times are seconds since the epoch, 0: not known; `lost_records` -1: not known.

    What came between `unknown_from` and `unknown_until` is unknown.
    """

    how: str  # restore | database | folder | mark_gone | database_lost
    unknown_from: int = 0
    unknown_until: int = 0
    lost_records: int = -1
    new_root: bool = False
    file: str = ""
    at: int = 0
    epoch: int = 0

    @property
    def event(self) -> str:
        """As log, journal and status name it."""
        return LOST if self.how == LOST else RESTORED

    @property
    def reason(self) -> str:
        return _WHY[self.how] + ("" if self.how == LOST else _SINCE)


class Beginning:
    """One start: what is found, and then done about it."""

    def __init__(self, table: RestorationTable, folder: Path, mark: Mark | None, clock: Clock) -> None:
        """Raise CannotStart if it cannot be told how far the last run had come."""
        self._table = table
        self._folder = folder
        self._mark = mark
        self._known = KnownMark(folder)
        self._clock = clock
        self._note = staging.restored(folder)
        self._marked = None if mark is None else mark.read()
        self._epoch, self._last_start = table.epoch(), last_start.of_agent(folder)

    def find(self, *, had_database: bool, had_root: bool) -> Restoration | None:
        """What this start is to be treated as; None: it goes on where the last run has ended.

        Raise CannotStart if there is no mark where the folder knows of one.
        """
        head, note, marked = self._table.head(), self._note, self._marked
        now = int(self._clock.now().timestamp())
        if note is not None:
            until = max(note.lost_until, 0 if marked is None else marked.head.at_ms // 1000) or note.restored_at
            lost = note.lost_records
            if lost < 0 and marked is not None:
                lost = max(0, marked.head.seq - head.seq)
            return Restoration("restore", note.made_at, until, lost, note.new_root, note.file)
        if not had_database:
            return Restoration(LOST, 0, now) if had_root or marked is not None else None
        if marked is None and self._known.lacks():
            return Restoration("mark_gone", head.at_ms // 1000, now)
        if marked is not None and self._is_behind(marked):
            lost = max(0, marked.head.seq - head.seq)
            return Restoration("folder", head.at_ms // 1000, marked.head.at_ms // 1000, lost)
        if self._epoch < self._last_start:
            return Restoration("database", head.at_ms // 1000, now)
        return None

    def _is_behind(self, marked: Marked) -> bool:
        if marked.epoch > max(self._epoch, self._last_start) or marked.head.seq > self._table.head().seq:
            return True
        # A record that was pruned cannot be compared, and counts as another one.
        return marked.head.seq > 0 and self._table.digest_at(marked.head.seq) != marked.head.digest

    async def begin(self, audit: Audit, found: Restoration | None) -> int:
        """Count this start, and return its number; with `found`, nothing of before verifies when this returns.

        Raise CannotStart, and what the store raises.
        """
        least = max(self._last_start, 0 if self._marked is None else self._marked.epoch) + 1
        if self._note is not None:
            least = max(least, self._note.epoch_at_least)
        if found is not None and found.how == LOST and least == 1:
            least = _beyond_all(self._clock.now().timestamp())
        if found is None:
            epoch = await self._table.begin(least)
        else:
            log.error(found.event, reason=found.reason)
            try:
                staging.drop_keys(self._folder)
            except OSError as error:
                raise CannotStart(f"keys of before cannot be removed: {error.strerror}", detail=str(error)) from error
            epoch = await self._table.begin(least, self._replaced(audit, found))
        self._write(epoch)
        if self._note is not None:
            staging.heard(self._folder)
        return epoch

    def _replaced(self, audit: Audit, found: Restoration) -> Callable[[int], Replaced]:
        now = int(self._clock.now().timestamp())
        fields = {
            "reason": found.reason,
            "how": found.how,
            "unknown_from": found.unknown_from or None,
            "unknown_until": found.unknown_until or None,
            "lost_records": None if found.lost_records < 0 else found.lost_records,
            "new_root": found.new_root or None,
            "file": found.file or None,
        }
        event = audit.event(LOST if found.how == LOST else RESTORED, fields)

        def replaced(epoch: int) -> Replaced:
            return Replaced(json.dumps({**asdict(found), "at": now, "epoch": epoch}), event, now)

        return replaced

    def _write(self, epoch: int) -> None:
        """The number of this start, beside the database and outside of the folder, in this order; then that it is."""
        path = self._folder / EPOCH
        try:
            atomic.write(path, f"{epoch}\n".encode())
            if self._mark is not None:
                path = self._mark.path
                self._mark.write(epoch, self._table.head(), self._clock.now().timestamp())
            path = self._folder / KNOWN
            self._known.settle(None if self._mark is None else self._mark.path)
        except OSError as error:
            raise CannotStart(f"{str(path)!r} cannot be written: {error.strerror}", detail=str(error)) from error


def _beyond_all(now: float) -> int:
    """A number of a start that no earlier one has had, where nothing says how many there were: agents do not start
    once a minute for years. What is numbered by starts is then older than this one: SVIDs, and lists of tokens.
    """
    least, most = LOST_EPOCHS
    return min(max(least, int(now - LOST_EPOCHS_SINCE) // LOST_EPOCH_SECONDS), most)


def last_of(table: RestorationTable) -> Restoration | None:
    """The last time that the database was replaced, for status. Raise CannotStart."""
    document = table.last()
    if document is None:
        return None
    try:
        return Restoration(**json.loads(document))
    except (TypeError, ValueError) as error:
        raise CannotStart("the database's record of its last restore cannot be parsed", detail=str(error)) from error
