"""store/ended_sessions.py: ends of people's sessions are kept by the real database."""

from sojourn.audit.journal import Event
from sojourn.people.ended_sessions import Ended
from sojourn.runtime.forgotten_times import Forgotten
from sojourn.store.ended_sessions import EndedSessionTable


async def test_what_is_kept(database, journal):
    """Ends are kept, the later one in the place of the earlier; others are forgotten, with the times of their tokens;
    and the journal has the record of it.
    """
    table = EndedSessionTable(database, journal)
    assert (0, -1) == (len(table.load().ended), table.load().after)
    await table.put([Ended("a", 1, 2), Ended("b", 3, 4)], [], Forgotten(), [Event(5, "person_session_ended", "{}")])
    await table.put([Ended("a", 7, 9)], ["b"], Forgotten(((2, 4),)), [])
    kept = EndedSessionTable(database, journal).load()
    assert ([Ended("a", 7, 9)], Forgotten(((2, 4),))) == (list(kept.ended), kept.forgotten)
    await table.put([], [], Forgotten(), [])
    assert Forgotten(((2, 4),)) == table.load().forgotten
