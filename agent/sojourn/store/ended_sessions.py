"""Sessions of people that have ended, in the database: by digests under a key that is not there."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select

from sojourn.audit.journal import Event
from sojourn.people.ended_sessions import Ended, KeptEnds
from sojourn.runtime.forgotten_times import Forgotten
from sojourn.store import settings
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.restorations import SESSIONS_AFTER
from sojourn.store.tables import ended_sessions

_FORGOTTEN = "ended_sessions_forgotten"  # in which their tokens may have ended
_DELETE = ended_sessions.delete().where(ended_sessions.c.digest == bindparam("named"))


class EndedSessionTable:
    """The store that ended sessions ask for."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit

    def load(self) -> KeptEnds:
        """Read in the calling thread: for the start."""

        def work(connection: Connection) -> KeptEnds:
            rows = connection.execute(select(ended_sessions))
            return KeptEnds(
                [Ended(row.digest, row.ended_at, row.until) for row in rows],
                Forgotten.parse(settings.get(connection, _FORGOTTEN)),
                int(settings.get(connection, SESSIONS_AFTER) or -1),
            )

        return self._database.read_now("ended sessions", work)

    async def put(
        self, ended: Sequence[Ended], dropped: Sequence[str], forgotten: Forgotten, events: Sequence[Event]
    ) -> None:
        gone = [{"named": digest} for digest in (*dropped, *(each.digest for each in ended))]
        rows = [{"digest": each.digest, "ended_at": each.at, "until": each.until} for each in ended]

        def work(connection: Connection) -> None:
            if gone:
                connection.execute(_DELETE, gone)
            if rows:
                connection.execute(ended_sessions.insert(), rows)
            if dropped:
                settings.put(connection, _FORGOTTEN, forgotten.text)
            self._audit.append_in(connection, events)

        await self._database.write(work)
