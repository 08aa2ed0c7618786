"""ended_sessions.py: what has ended at its issuer is taken no more, over restarts and whatever the clock says."""

import asyncio
import json
from dataclasses import replace

import pytest
from fakes.clock import FakeClock
from fakes.ended_sessions import KEY, FakeEndedStore
from fakes.persons import CORP, LIFE, person, refused
from sojourn.audit.journal import Event
from sojourn.errors import StoreFailed
from sojourn.errors.oauth import NotOnDisk
from sojourn.limits import ENDED_SESSIONS_EVENTS, ENDED_SESSIONS_KEPT_SECONDS
from sojourn.people.ended_sessions import EndedSessions
from sojourn.runtime.clock import Alarms
from structlog.testing import capture_logs

ALICE = person("alice")
NOW = ALICE.issued_at
LONGEST = 3600


def event(number):
    return Event(0, "person_session_ended", json.dumps({"number": number}))


class Kept:
    """What has ended, in a store that outlives it."""

    def __init__(self, store=None, clock=None, **more):
        self.store, self.clock = store or FakeEndedStore(), clock or FakeClock()
        self.alarms = Alarms(self.clock)
        self.sessions = EndedSessions(KEY, self.store, self.clock, self.alarms, **more)

    def again(self):
        """The next run, on the same store."""
        return Kept(self.store, self.clock)

    def end(self, *, session="", subject="", at=NOW, longest=LONGEST):
        self.sessions.end(CORP, session=session, subject=subject, at=at, longest=longest)

    def takes(self, *people):
        for each in people:
            self.sessions.check(each)

    def refuses(self, *people):
        for each in people:
            with refused("session_ended"):
                self.sessions.check(each)


class TestWhatEnds:
    def test_a_session(self):
        """No token of a session that has ended is taken, not even one that its issuer made later; others are."""
        kept = Kept()
        kept.takes(ALICE)
        kept.end(session=ALICE.session)
        kept.refuses(ALICE, replace(ALICE, issued_at=NOW + 100), replace(ALICE, subject="by another name"))
        kept.takes(replace(ALICE, session="another"), person("bob"), replace(ALICE, url=CORP + "/"))

    def test_a_person(self):
        """A logout that names no session ends all tokens of the person of until then, and none of after."""
        kept = Kept()
        kept.end(subject="alice")
        kept.refuses(ALICE, replace(ALICE, session=""), replace(ALICE, session="x", issued_at=NOW - 1))
        kept.takes(replace(ALICE, issued_at=NOW + 1), person("bob"), replace(ALICE, url="https://other.example"))

    def test_both(self):
        """A logout of a session that says whose it is leaves that person's other sessions, and ends what of theirs
        names no session: it may be of this one.
        """
        kept = Kept()
        kept.end(session=ALICE.session, subject="alice")
        kept.refuses(ALICE, replace(ALICE, session=""))
        kept.takes(replace(ALICE, session="at home"), replace(ALICE, session="", issued_at=NOW + 1))

    def test_an_earlier_logout_after_a_later_one(self):
        """Of two logouts the later one counts, in whichever order they come; one that comes twice changes nothing."""
        kept = Kept()
        for at in (NOW + 10, NOW, NOW + 10):
            kept.end(subject="alice", at=at)
        kept.refuses(replace(ALICE, issued_at=NOW + 10))
        kept.takes(replace(ALICE, issued_at=NOW + 11))

    def test_names_do_not_run_into_each_other(self):
        """A session is no person of the same name, nor is a name's end another one's beginning."""
        kept = Kept()
        kept.end(session="alice")
        kept.takes(ALICE, replace(ALICE, session=""))
        kept.refuses(replace(ALICE, session="alice"))


class TestKept:
    async def test_over_a_restart(self):
        """The next run of the agent knows it, and nothing in the store says who it was."""
        kept = Kept()
        kept.end(session=ALICE.session)
        kept.end(subject="bob")
        await kept.sessions.settle([])
        later = kept.again()
        later.refuses(ALICE, person("bob"))
        later.takes(person("carol"))
        assert ["alice" in str(kept.store.rows), "bob" in str(kept.store.rows), CORP in str(kept.store.rows)] == [
            False,
            False,
            False,
        ]

    async def test_the_disk_does_not_take_it(self):
        """What the disk does not take has ended all the same, its caller hears that it is not written, and it is written
        as soon as that can be.
        """
        kept = Kept()
        kept.store.failure = StoreFailed("no room")
        kept.end(session=ALICE.session)
        with pytest.raises(NotOnDisk):
            await kept.sessions.settle([])
        kept.refuses(ALICE)
        assert {} == kept.store.rows
        kept.store.failure = None
        kept.clock.advance(2)
        kept.alarms.ring_due()
        await kept.sessions.close()
        kept.again().refuses(ALICE)

    async def test_records_while_the_disk_fails(self):
        """However often ends come again while the disk fails, no more of their records wait than there is room for, the
        newest; how many were left out is said once, and no end is lost.
        """
        kept = Kept()
        kept.store.failure = StoreFailed("no room")
        for number in range(ENDED_SESSIONS_EVENTS + 30):
            kept.end(session=f"s{number % 3}")
            with pytest.raises(NotOnDisk):
                await kept.sessions.settle([event(number)])
            assert len(kept.sessions._events) <= ENDED_SESSIONS_EVENTS
        kept.store.failure = None
        with capture_logs() as logs:
            await kept.sessions.settle([event(-1)])
            await kept.sessions.settle([event(-2)])
        wanted = [*range(31, ENDED_SESSIONS_EVENTS + 30), -1, -2]
        assert wanted == [json.loads(each.fields)["number"] for each in kept.store.events]
        assert [31] == [each["records"] for each in logs if each["event"] == "ended_sessions_events_left_out"]
        again = kept.again()
        again.refuses(*(replace(ALICE, session=f"s{number}") for number in range(3)))

    async def test_records_of_meanwhile(self):
        """A record that comes while a write is under way, which fails, is written after those before it."""
        kept = Kept()
        kept.store.failure = StoreFailed("no room")
        kept.end(session="first")
        failing = asyncio.ensure_future(kept.sessions.settle([event(1)]))
        await asyncio.sleep(0)
        kept.end(session="second")
        second = asyncio.ensure_future(kept.sessions.settle([event(2)]))
        await asyncio.gather(failing, second, return_exceptions=True)
        kept.store.failure = None
        await kept.sessions.settle([event(3)])
        assert [1, 2, 3] == [json.loads(each.fields)["number"] for each in kept.store.events]

    async def test_forgotten(self):
        """It is forgotten once no token of it can be good, and not before; the clock that is set back then makes none
        good.
        """
        kept = Kept()
        kept.end(session=ALICE.session)
        kept.clock.advance(LONGEST + ENDED_SESSIONS_KEPT_SECONDS - 1)
        kept.end(session="second", at=NOW + LONGEST)
        assert 2 == len(kept.sessions)
        kept.clock.advance(100)
        kept.end(session="third", at=NOW + LONGEST)
        await kept.sessions.settle([])
        assert (2, 2) == (len(kept.sessions), len(kept.store.rows))
        for each in (kept, kept.again()):
            each.clock.step_wall(-2 * ENDED_SESSIONS_KEPT_SECONDS - LONGEST)
            each.refuses(ALICE, replace(ALICE, expires_at=NOW + 1), replace(ALICE, expires_at=NOW + LONGEST))
            each.takes(replace(ALICE, expires_at=NOW + LONGEST + 1), replace(ALICE, expires_at=NOW + 20 * LIFE))

    async def test_no_room(self):
        """Where there is no room, those go first whose tokens end first, and whoever has such a token gets a newer one."""
        kept = Kept(room=3)
        for number in range(5):
            kept.end(session=f"s{number}", at=NOW + number * 2 * LONGEST)
        assert 3 == len(kept.sessions)
        kept.refuses(replace(ALICE, session="s0"), replace(ALICE, session="s1", expires_at=NOW + 3 * LONGEST))
        kept.refuses(replace(ALICE, session="s4", expires_at=NOW + 99 * LONGEST))
        kept.takes(replace(ALICE, session="new", issued_at=NOW + 6 * LONGEST, expires_at=NOW + 6 * LONGEST + LIFE))
        await kept.sessions.settle([])
        assert 3 == len(kept.store.rows)

    async def test_while_it_is_written(self):
        """What ends while another end is written is written too."""
        kept = Kept()
        kept.end(session="first")
        writing = asyncio.ensure_future(kept.sessions.settle([]))
        await asyncio.sleep(0)
        kept.end(session=ALICE.session)
        await writing
        await kept.sessions.settle([])
        assert 2 == len(kept.store.rows)

    def test_a_backup_was_put_back(self):
        """Of tokens that were issued before a backup was put back nobody knows whether their session goes on."""
        kept = Kept(FakeEndedStore(after=NOW))
        kept.refuses(ALICE)
        kept.takes(replace(ALICE, issued_at=NOW + 1))
