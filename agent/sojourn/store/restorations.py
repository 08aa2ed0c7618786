"""What the database says of its own history, and the start of an agent on one that is not of its last run."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select

from sojourn.audit.journal import FIRST, Event
from sojourn.authority import svid_stamps
from sojourn.store import settings
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.last_good_types import NAME as TYPES
from sojourn.store.snapshot import Head
from sojourn.store.tables import audit, tasks
from sojourn.tasks.last_good_types import of_older
from sojourn.tasks.task import LIVING

RESTORED = "restored"  # what was found at the last start on another's database: a JSON document
SVIDS_FROM = "svids_from"  # the first order of stamps that are good
SIGNALS_AFTER = "signals_after"  # the last second of which no signed event is taken, since the epoch
SESSIONS_AFTER = "sessions_after"  # nor one of the ends of people's sessions is known to have been heard
_EPOCH, _HEAD, _BACKED_UP = "epoch", "audit_head", "backed_up"
_RECORD = select(audit.c.digest, audit.c.at_ms).where(audit.c.seq == bindparam("named"))


@dataclass(frozen=True, slots=True)
class Replaced:
    """What is written when the database is not that of the last run. `document` is what status tells of it.

    `at`: of this start, seconds since the epoch. What others had signed until then may have been used.
    """

    document: str
    event: Event
    at: int


class RestorationTable:
    """Asked before anything is served."""

    def __init__(self, database: Database, journal: AuditTable) -> None:
        self._database = database
        self._journal = journal

    def epoch(self) -> int:
        """The number of the last start that the database knows of; 0: there was none."""
        return self._database.read_now("start number", lambda connection: int(settings.get(connection, _EPOCH) or 0))

    def head(self) -> Head:
        """The last record of the journal, read in the calling thread."""
        return self._database.read_now("journal", _head)

    async def head_now(self) -> Head:
        """The same, while others write: what it says is on disk."""
        return await self._database.read(_head)

    def digest_at(self, seq: int) -> str | None:
        """The digest of a record; None: it was pruned, or there was none."""
        row = self._database.read_now("journal", lambda connection: connection.execute(_RECORD, {"named": seq}).first())
        return None if row is None else str(row.digest)

    def last(self) -> str | None:
        """The document of the last time that the database was replaced."""
        return self._database.read_now("restorations", lambda connection: settings.get(connection, RESTORED))

    async def begin(self, at_least: int, replaced: Callable[[int], Replaced] | None = None) -> int:
        """Count this start of the agent and return its number: `at_least`, and above all that the database has counted.

        `replaced` is called with the number where the database is not that of the last run. Then, in one write,
        no SVID, no signed event and no person's token of before is good any more, and no task of before goes on.
        """

        def work(connection: Connection) -> int:
            epoch = max(int(settings.get(connection, _EPOCH) or 0) + 1, at_least)
            settings.put(connection, _EPOCH, str(epoch))
            if replaced is not None:
                found = replaced(epoch)
                settings.put(connection, RESTORED, found.document)
                settings.put(connection, SVIDS_FROM, str(svid_stamps.first_order(epoch)))
                settings.put(connection, SIGNALS_AFTER, str(found.at))
                settings.put(connection, SESSIONS_AFTER, str(found.at))
                connection.execute(tasks.update().where(tasks.c.state.in_(LIVING)).values(boot_id=""))
                # Here, so that no later start takes the set, also where this one is broken off before it reads any.
                if (kept := settings.get(connection, TYPES)) is not None:
                    settings.put(connection, TYPES, of_older(kept))
                self._journal.append_in(connection, [found.event])
            return epoch

        return await self._database.write(work)

    async def backed_up(self) -> str | None:
        """The digest of the last backup that was recorded."""
        return await self._database.read(lambda connection: settings.get(connection, _BACKED_UP))

    async def note_backup(self, sha256: str, event: Event) -> None:
        """Record that a backup was made."""

        def work(connection: Connection) -> None:
            settings.put(connection, _BACKED_UP, sha256)
            self._journal.append_in(connection, [event])

        await self._database.write(work)


def _head(connection: Connection) -> Head:
    seq, digest = (settings.get(connection, _HEAD) or f"0 {FIRST}").split(" ")
    row = connection.execute(_RECORD, {"named": int(seq)}).first()
    return Head(int(seq), digest, 0 if row is None else int(row.at_ms))
