"""slots.py: prepared, active, old, tainted, revoked; by hand and by time."""

from datetime import timedelta

import pytest
from fakes.clock import FakeClock
from sojourn.authority.jwtkeys import JwtKeys
from sojourn.authority.slots import Status
from sojourn.errors import FailedPrecondition, InvalidInput

TTL = timedelta(days=30)
PREPARED, ACTIVE, OLD = Status.PREPARED, Status.ACTIVE, Status.OLD


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jwt.pem"


@pytest.fixture
def slots(path, clock):
    return JwtKeys(path, clock, TTL)


def states(slots):
    return [each.status for each in slots.all]


def share(clock, slots, of):
    """Advance to where this share of the active key's life is over."""
    clock.advance((slots.active.at(of) - clock.now()).total_seconds())


class TestByHand:
    def test_a_whole_life(self, slots, path, clock):
        """A key is prepared, signs, is old, is tainted, and is gone; each step is there after a restart."""
        first = slots.active.id
        second = slots.prepare().id
        assert ([ACTIVE, PREPARED], first, second) == (states(slots), slots.active.id, slots.prepared.id)
        assert second == slots.activate(second).id
        assert ([OLD, ACTIVE], second, None) == (states(slots), slots.active.id, slots.prepared)
        assert slots.taint(first).tainted
        assert frozenset({first}) == JwtKeys(path, clock, TTL).tainted
        assert first == slots.revoke(first).id
        assert [second] == [each.id for each in JwtKeys(path, clock, TTL).all]

    def test_preparing_twice(self, slots):
        """A prepared key that never signed gives way to the next."""
        first, second = slots.prepare().id, slots.prepare().id
        assert (first != second, second, [ACTIVE, PREPARED]) == (True, slots.prepared.id, states(slots))

    @pytest.mark.parametrize("step", ["activate", "taint", "revoke"])
    def test_unknown(self, slots, step):
        """An ID that is missing or that no key has is refused, and nothing changes."""
        before = slots.all
        for authority_id, words in (("", "no authority ID provided"), ("nobody", "unexpected authority ID")):
            with pytest.raises(InvalidInput, match=words):
                getattr(slots, step)(authority_id)
        assert before == slots.all

    def test_the_active_one(self, slots):
        """What signs can be neither tainted nor revoked."""
        for step in ("taint", "revoke"):
            with pytest.raises(FailedPrecondition, match="current local authority"):
                getattr(slots, step)(slots.active.id)

    def test_a_prepared_one(self, slots):
        """What has not signed yet can be neither tainted nor revoked."""
        made = slots.prepare()
        for step in ("taint", "revoke"):
            with pytest.raises(FailedPrecondition, match="only Old local authorities"):
                getattr(slots, step)(made.id)

    def test_an_old_one(self, slots):
        """What is old cannot be activated again, tainted twice, or revoked before it is tainted."""
        old = slots.active.id
        slots.activate(slots.prepare().id)
        with pytest.raises(FailedPrecondition, match="only Prepared authorities"):
            slots.activate(old)
        with pytest.raises(FailedPrecondition, match="taint it first"):
            slots.revoke(old)
        slots.taint(old)
        with pytest.raises(FailedPrecondition, match="tainted already"):
            slots.taint(old)

    def test_several_old_ones(self, slots):
        """Each of several old keys can be tainted and revoked."""
        first = slots.active.id
        second = slots.activate(slots.prepare().id).id
        slots.activate(slots.prepare().id)
        for each in (first, second):
            slots.taint(each)
            slots.revoke(each)
        assert [ACTIVE] == states(slots)


class TestByTime:
    def test_published_before_it_signs(self, slots, clock):
        """At half of its life a key's successor is published, and at two thirds it signs; the first verifies on."""
        first = slots.active.id
        clock.advance(TTL.total_seconds() / 2 - 1)
        assert not slots.maintain()
        clock.advance(1)
        assert slots.maintain()
        assert ([ACTIVE, PREPARED], first) == (states(slots), slots.active.id)
        share(clock, slots, 2 / 3)
        assert slots.maintain()
        assert ([OLD, ACTIVE], True) == (states(slots), first != slots.active.id)

    def test_prepared_early_by_hand(self, slots, clock):
        """A key that was prepared early signs when its time has come, not before."""
        made = slots.prepare().id
        share(clock, slots, 1 / 2)
        assert not slots.maintain()
        share(clock, slots, 2 / 3)
        assert (True, made) == (slots.maintain(), slots.active.id)

    @pytest.mark.parametrize("at", [0.8, 0.95])
    def test_after_a_long_stop(self, path, slots, clock, at):
        """If nobody was there to prepare it, a key still signs well before the one before it ends."""
        first = slots.active
        share(clock, slots, at)
        again = JwtKeys(path, clock, TTL)
        assert first.id == again.active.id
        while again.active.id == first.id:
            clock.advance(max(1.0, (again.next_change - clock.now()).total_seconds()))
            again.maintain()
        assert clock.now() < first.not_after - TTL * 0.04

    def test_next_change(self, slots, clock):
        """The next change is said: nothing happens before, something does then."""
        for _ in range(12):
            clock.advance((slots.next_change - clock.now()).total_seconds() - 1)
            assert not slots.maintain()
            clock.advance(1)
            assert slots.maintain()

    def test_a_prepared_one_takes_over_at_the_end(self, path, slots, clock):
        """If the active key ended while nobody was there, the prepared one signs."""
        share(clock, slots, 1 / 2)
        slots.maintain()
        made = slots.prepared.id
        share(clock, slots, 1.01)
        again = JwtKeys(path, clock, TTL)
        assert ([made], [ACTIVE]) == ([each.id for each in again.all], states(again))
