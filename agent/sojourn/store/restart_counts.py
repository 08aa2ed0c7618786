"""How often the agent was started again on its database, by how the run before had ended."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, select

from sojourn.store import settings
from sojourn.store.database import Database
from sojourn.store.tables import audit

# How the run before ended: in good order, or without a word, as after a kill, a crash or the loss of power.
STOPPED, KILLED = "stopped", "killed"
_COUNTS: Final = {STOPPED: "restarts_stopped", KILLED: "restarts_killed"}
_BEGUN_BEHIND: Final = "restarts_begun_behind"  # the last record of the journal when the last run began
_LAST_WORD: Final = "agent_stopped"  # the last event of a run that ends in good order


async def count_restart(database: Database) -> Mapping[str, int]:
    """Count this start, unless it is the first. Return the counts of all time, by how the run before ended.

    To be called before this run has written anything to the journal.
    """

    def work(connection: Connection) -> dict[str, int]:
        counts = {how: int(settings.get(connection, name) or 0) for how, name in _COUNTS.items()}
        last = connection.execute(select(audit.c.seq, audit.c.event).order_by(audit.c.seq.desc()).limit(1)).first()
        begun_behind = settings.get(connection, _BEGUN_BEHIND)
        if last is not None or begun_behind is not None:
            # A run that was killed at once has left no record: the last word is that of the run before it.
            said = last is not None and last.event == _LAST_WORD and last.seq > int(begun_behind or 0)
            how = STOPPED if said else KILLED
            counts[how] += 1
            settings.put(connection, _COUNTS[how], str(counts[how]))
        settings.put(connection, _BEGUN_BEHIND, str(0 if last is None else last.seq))
        return counts

    return await database.write(work)
