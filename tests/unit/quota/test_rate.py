"""rate.py: so many a second for each owner, with and without a burst."""

import pytest
from sojourn.quota import rate as rate_module
from sojourn.quota.rate import BurstRate, Rate


class Seconds:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def seconds():
    return Seconds()


class TestRate:
    def test_so_many_a_second(self, seconds):
        """What is over the rate is refused until the next second begins, however often it is tried."""
        rate = Rate(3, seconds)
        assert [True, True, True, False, False] == [rate.allow("a") for _ in range(5)]
        seconds.now += 0.999
        assert not rate.allow("a")
        seconds.now += 0.001
        assert [True, True, True, False] == [rate.allow("a") for _ in range(4)]

    def test_each_has_its_own(self, seconds):
        """What one owner causes leaves another's rate as it is."""
        rate = Rate(1, seconds)
        assert [True, False, True, True] == [rate.allow(who) for who in ("a", "a", "b", 7)]

    def test_nothing_is_saved_up(self, seconds):
        """Whoever was silent for long has no more than the others."""
        rate = Rate(2, seconds)
        rate.allow("a")
        seconds.now += 1_000
        assert [True, True, False] == [rate.allow("a") for _ in range(3)]

    def test_nobody_is_remembered(self, seconds):
        """Of those who caused something in earlier seconds nothing is kept."""
        rate = Rate(1, seconds)
        for who in range(1_000):
            rate.allow(who)
        seconds.now += 1
        rate.allow("a")
        assert {"a"} == set(rate._used)

    def test_by_its_own_clock(self):
        """Without a clock of the caller's a clock counts that nobody sets."""
        rate = Rate(1_000_000)
        assert rate.allow("a")


class TestBurstRate:
    def test_a_burst_and_then_the_rate(self, seconds):
        """After a burst an owner goes on at the rate, also in parts of a second."""
        rate = BurstRate(2, 5, seconds)
        assert [True] * 5 + [False] == [rate.allow("a") for _ in range(6)]
        seconds.now += 0.5
        assert [True, False] == [rate.allow("a") for _ in range(2)]
        seconds.now += 1
        assert [True, True, False] == [rate.allow("a") for _ in range(3)]

    def test_each_has_its_own(self, seconds):
        """What one owner uses up leaves another's burst as it is."""
        rate = BurstRate(1, 1, seconds)
        assert [True, False, True] == [rate.allow(who) for who in ("a", "a", "b")]

    def test_the_burst_is_the_most(self, seconds):
        """However long an owner is silent, no more than the burst is saved up."""
        rate = BurstRate(2, 5, seconds)
        rate.allow("a")
        seconds.now += 1e6
        assert 5 == sum(rate.allow("a") for _ in range(20))

    def test_a_refusal_costs_nothing(self, seconds):
        """Whoever goes on asking in vain gets its next token as soon as one who waits."""
        rate = BurstRate(1, 1, seconds)
        assert rate.allow("a")
        assert [False] * 9 == [rate.allow("a") for _ in range(9)]
        seconds.now += 1
        assert rate.allow("a")

    def test_a_rate_above_the_burst(self, seconds):
        """A rate that is above the burst is one, too."""
        rate = BurstRate(8, 5, seconds)
        assert 8 == sum(rate.allow("a") for _ in range(20))

    def test_another_rate(self, seconds):
        """A rate that is changed counts from then on."""
        rate = BurstRate(1, 1, seconds)
        rate.allow("a")
        rate.per_second = 3
        seconds.now += 1
        assert [True, True, True, False] == [rate.allow("a") for _ in range(4)]

    def test_whoever_rests_is_forgotten(self, seconds, monkeypatch):
        """What is remembered is bounded: those with a full burst are forgotten first, and nobody gains by it."""
        monkeypatch.setattr(rate_module, "BURSTS_KEPT", 3)
        rate = BurstRate(2, 5, seconds)
        for who in "ab":
            rate.allow(who)
        for _ in range(5):
            rate.allow("c")
        seconds.now += 0.5
        assert rate.allow("d")
        assert {"c", "d"} == set(rate._buckets)
        assert [True, False] == [rate.allow("c") for _ in range(2)]
