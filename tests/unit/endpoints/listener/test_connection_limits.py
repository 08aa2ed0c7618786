"""connection_limits.py: nobody takes all places, and nobody is let in too often."""

import pytest
from fakes.clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from sojourn.endpoints.listener import connection_limits as admission_module
from sojourn.endpoints.listener.connection_limits import Admission
from sojourn.limits import (
    ADMIN_CONNECTIONS,
    CONNECTIONS_PER_UID_SHARE,
    DESCRIPTORS_PER_CONNECTION,
    DESCRIPTORS_RESERVED,
)
from sojourn.settings.tables import LimitsConfig

BURST, RATE = 5, 2


@pytest.fixture(autouse=True)
def small_burst(monkeypatch):
    monkeypatch.setattr(admission_module, "CONNECTION_BURST_PER_UID", BURST)


def make(clock, *, connections=100, per_uid=50, rate=RATE):
    return Admission(clock, connections=connections, per_uid=per_uid, per_uid_per_second=rate)


def test_all_places(clock):
    """When all places are taken everyone is refused, and a place that is left can be taken."""
    admission = make(clock, connections=2)
    assert ["", ""] == [admission.enter(uid) for uid in (1, 2)]
    assert "all connections are taken" == admission.enter(3)
    admission.leave(1)
    assert ("", 2) == (admission.enter(3), admission.open)


def test_other_limits(clock):
    """Limits that change are in force for the next connection; whoever has more than they allow keeps them."""
    admission = make(clock, per_uid=2)
    assert ["", ""] == [admission.enter(1) for _ in range(2)]
    admission.allow(LimitsConfig(connections_per_uid=1, connections_per_uid_per_second=RATE))
    assert ("the user has too many connections", 2) == (admission.enter(1), admission.open)
    admission.allow(LimitsConfig(connections_per_uid=3, connections_per_uid_per_second=RATE))
    assert "" == admission.enter(1)


def test_one_user_s_places(clock):
    """One user cannot take all places; others still come in."""
    admission = make(clock, per_uid=2)
    assert ["", "", "the user has too many connections"] == [admission.enter(1) for _ in range(3)]
    assert "" == admission.enter(2)
    admission.leave(1)
    assert "" == admission.enter(1)


def test_rate(clock):
    """After a burst a user comes in at the rate; another user is not held up by that."""
    admission = make(clock)
    assert [""] * BURST == [admission.enter(1) for _ in range(BURST)]
    assert "the user connects too often" == admission.enter(1)
    assert "" == admission.enter(2)
    clock.advance(1)
    assert ["", "", "the user connects too often"] == [admission.enter(1) for _ in range(RATE + 1)]


def test_the_burst_is_the_most(clock):
    """However long a user stays away, no more than the burst is saved up."""
    admission = make(clock)
    admission.enter(1)
    clock.advance(1e6)
    assert BURST == sum(admission.enter(1) == "" for _ in range(BURST * 2))


def test_a_step_of_the_wall_clock(clock):
    """A wall clock that is set gives nobody a new burst."""
    admission = make(clock)
    for _ in range(BURST):
        admission.enter(1)
    clock.step_wall(86_400)
    assert admission.enter(1)


def test_refused_is_not_counted(clock):
    """A refused connection takes no place."""
    admission = make(clock, per_uid=1)
    admission.enter(1)
    admission.enter(1)
    assert 1 == admission.open
    admission.leave(1)
    assert ("", 1) == (admission.enter(1), admission.open)


class TestWithin:
    """The share of the agent's descriptors that a door may take."""

    def test_share(self, clock):
        """Of what is not reserved a door has its share, and a user a share of that."""
        reserved = DESCRIPTORS_RESERVED + ADMIN_CONNECTIONS * DESCRIPTORS_PER_CONNECTION
        found = Admission.within(reserved + 1_000 * DESCRIPTORS_PER_CONNECTION, 0.5, LimitsConfig(), clock)
        assert (500, int(500 * CONNECTIONS_PER_UID_SHARE)) == (found._connections, found._per_uid)
        assert LimitsConfig().connections_per_uid_per_second == found._rate.per_second

    def test_comes_in(self, clock):
        """A door that is made so lets callers in, by its clock."""
        assert "" == Admission.within(100_000, 0.5, LimitsConfig(), clock).enter(1)

    def test_as_configured(self, clock):
        """What the configuration says of a user counts."""
        limits = LimitsConfig(connections_per_uid=77, connections_per_uid_per_second=9)
        found = Admission.within(100_000, 0.5, limits, clock)
        assert (77, 9) == (found._per_uid, found._rate.per_second)

    def test_the_least(self, clock):
        """Where there are hardly any descriptors, some come in all the same."""
        found = Admission.within(0, 0.5, LimitsConfig(), clock)
        assert (16, 8) == (found._connections, found._per_uid)


def test_a_rate_above_the_burst(clock):
    """A rate that is above the burst is one, too: so many at once."""
    admission = make(clock, rate=BURST + 3)
    assert BURST + 3 == sum(admission.enter(1) == "" for _ in range(20))


def test_one_leaves_and_another_stays(clock):
    """Whoever leaves frees his own place alone."""
    admission = make(clock, per_uid=2)
    assert ["", ""] == [admission.enter(1), admission.enter(1)]
    admission.leave(1)
    assert ["", "the user has too many connections"] == [admission.enter(1), admission.enter(1)]


def test_nobody_inside_is_remembered(clock):
    """Of those who have left nothing is kept but how often they came."""
    admission = make(clock)
    for uid in (1, 1, 2):
        admission.enter(uid)
    for uid in (1, 2, 1):
        admission.leave(uid)
    assert (0, {}) == (admission.open, dict(admission._open))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_the_counts_agree(moves):
    """After any coming and going the total is the number of those inside, and nobody is below zero."""
    admission = make(FakeClock(), connections=6, per_uid=3, rate=1000)
    inside = []
    for uid, comes in moves:
        if comes and not admission.enter(uid):
            inside.append(uid)
        elif not comes and uid in inside:
            inside.remove(uid)
            admission.leave(uid)
        assert len(inside) == admission.open <= 6
        assert all(inside.count(each) == admission._open[each] <= 3 for each in set(inside))


def test_each_reason_has_a_word(clock):
    """Whatever a user is refused for, there is a word of it for metrics."""
    full, crowded, often = make(clock, connections=1), make(clock, per_uid=1), make(clock)
    full.enter(1)
    crowded.enter(1)
    said = [full.enter(2), crowded.enter(1), *(often.enter(1) for _ in range(BURST + 1))]
    assert ["no_room", "too_many", "too_often"] == [admission_module.REFUSALS[each] for each in said if each]
