"""journal_room.py: who is refused what would add records, and what is said of how full the journal is."""

import pytest
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from sojourn.audit.journal import Audit
from sojourn.audit.journal_room import JournalRoom
from sojourn.errors import AuditFull, LimitExceeded
from sojourn.operating_limits import ROOM_FAIR_RECORDS, ROOM_OWNERS
from structlog.testing import capture_logs

NOISY, QUIET = "spiffe://example.org/noisy", "spiffe://example.org/quiet"


@pytest.fixture
def room(clock: FakeClock) -> JournalRoom:
    return JournalRoom(clock)


@pytest.fixture
def audit(clock: FakeClock, room: JournalRoom) -> Audit:
    made = Audit(FakeAuditStore(), clock, waiting_max=100_000)
    room.follow(made.on_event)
    room.follow(made.on_event)  # again, as after a reload: each is counted once all the same
    return made


def record(audit: Audit, who: str, number: int) -> None:
    for _ in range(number):
        audit.note("token_issued", spiffe_id=who)


def refused(room: JournalRoom, who: str) -> str:
    try:
        room.check(who)
    except (AuditFull, LimitExceeded) as error:
        return error.code
    return ""


class TestFull:
    def test_everybody_is_refused(self, room: JournalRoom) -> None:
        """When it is full nobody is given anything, and when it is no more everybody is."""
        heard: list[bool] = []
        room.on_full(heard.append)
        with capture_logs() as said:
            for full in (True, True, False, False):
                room.judge(1.0, full=full)
                assert ("audit_full" if full else "") == refused(room, QUIET)
        assert [True, False] == heard
        assert ["journal_held", "journal_full", "journal_has_room"] == [each["event"] for each in said]

    def test_each_level_is_told_once(self, room: JournalRoom) -> None:
        """50, 80 and 95 % are told as they are come to, and again once it was clearly less."""
        told = []
        for held in (0.4, 0.5, 0.6, 0.79, 0.81, 0.8, 0.79, 0.81, 0.96, 0.7, 0.82, 0.1):
            with capture_logs() as said:
                room.judge(held, full=False)
            told.append(len(said))
        assert [0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0] == told


class TestFairness:
    def test_who_causes_most(self, room: JournalRoom, audit: Audit) -> None:
        """Over 80 % whoever caused more than half of the records is refused, and others are not."""
        record(audit, NOISY, ROOM_FAIR_RECORDS)
        record(audit, QUIET, ROOM_FAIR_RECORDS - 1)
        room.judge(0.79, full=False)
        assert ("", "") == (refused(room, NOISY), refused(room, QUIET))
        room.judge(0.81, full=False)
        assert ("limit_exceeded", "") == (refused(room, NOISY), refused(room, QUIET))
        record(audit, QUIET, 1)
        room.judge(0.81, full=False)
        assert "" == refused(room, NOISY)

    def test_few_records(self, room: JournalRoom, audit: Audit) -> None:
        """Where there are few records nobody's half is a flood."""
        record(audit, NOISY, ROOM_FAIR_RECORDS - 1)
        room.judge(0.9, full=False)
        assert "" == refused(room, NOISY)

    def test_the_last_hour_counts(self, room: JournalRoom, audit: Audit, clock: FakeClock) -> None:
        """What was recorded more than an hour ago counts no more."""
        record(audit, NOISY, 5_000)
        for _ in range(58):
            clock.advance(60)
            record(audit, QUIET, 20)
            room.judge(0.9, full=False)
        assert "limit_exceeded" == refused(room, NOISY)
        for _ in range(4):
            clock.advance(60)
            record(audit, QUIET, 20)
            room.judge(0.9, full=False)
        assert "" == refused(room, NOISY)
        assert room.causes_most(QUIET)

    def test_many_workloads(self, room: JournalRoom, audit: Audit) -> None:
        """However many workloads there are, what is kept of them is bounded, and the noisy one is found."""
        record(audit, NOISY, 3 * ROOM_OWNERS)
        for number in range(ROOM_OWNERS + 100):
            record(audit, f"spiffe://example.org/{number}", 1)
        room.judge(0.9, full=False)
        assert "limit_exceeded" == refused(room, NOISY)
        assert len(room._window) <= ROOM_OWNERS + 1
