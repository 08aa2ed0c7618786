"""key_rotation.py: prepared, active, old, tainted, revoked; by hand and by time."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sojourn.authority.jwt_keys import JwtKeys
from sojourn.authority.key_rotation import SlotStatus
from sojourn.authority.roots import Roots
from sojourn.errors import FailedPrecondition, InvalidInput
from sojourn.spiffe.ids import TrustDomain

TTL = timedelta(days=30)
DOMAIN = TrustDomain("example.org")
PREPARED, ACTIVE, OLD = SlotStatus.PREPARED, SlotStatus.ACTIVE, SlotStatus.OLD


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
        assert ([made], [OLD, ACTIVE]) == ([each.id for each in again.all][1:], states(again))


class TestOverlap:
    """For how long a key is published before it signs."""

    def published(self, slots, clock):
        """How long the key that signs next was published before it does; the active one's end."""
        ends = slots.active.not_after
        while slots.prepared is None:
            clock.advance(max(1.0, (slots.next_change - clock.now()).total_seconds()))
            slots.maintain()
        at, made = clock.now(), slots.prepared.id
        while slots.active.id != made:
            clock.advance(max(1.0, (slots.next_change - clock.now()).total_seconds()))
            slots.maintain()
        return clock.now() - at, ends - clock.now()

    @pytest.mark.parametrize("overlap", [timedelta(hours=1), timedelta(days=10)])
    def test_by_time(self, path, clock, overlap):
        """A key is published for as long as is asked before it signs, and signs at two thirds of the one before."""
        slots = JwtKeys(path, clock, TTL, overlap)
        for _ in range(3):
            published, left = self.published(slots, clock)
            assert (True, True) == (published >= overlap, abs(left - TTL / 3) < timedelta(minutes=1))

    @pytest.mark.parametrize("ttl", [timedelta(hours=1), timedelta(hours=2), TTL])
    def test_default(self, path, clock, ttl):
        """By default that is an hour, or a third of a short life."""
        slots = JwtKeys(path, clock, ttl)
        assert min(timedelta(hours=1), ttl / 3) == slots.overlap
        assert self.published(slots, clock)[0] >= slots.overlap

    @pytest.mark.parametrize("at", [0.6, 0.91, 0.98])
    def test_after_a_long_stop(self, path, slots, clock, at):
        """What an agent that did not run has missed is made good: the next key is published first, all the same."""
        share(clock, slots, at)
        again = JwtKeys(path, clock, TTL)
        again.maintain()
        published, left = self.published(again, clock)
        assert (True, True) == (published >= timedelta(hours=1), left > timedelta(minutes=9))

    def test_restart_between(self, path, slots, clock):
        """A restart while a key is published neither forgets it nor has it sign early."""
        share(clock, slots, 0.95)
        JwtKeys(path, clock, TTL)
        clock.advance(1800)
        again = JwtKeys(path, clock, TTL)
        assert ([ACTIVE, PREPARED], timedelta(minutes=30)) == (states(again), again.next_change - clock.now())

    def test_just_before_the_end(self, path, slots, clock):
        """When a key ends before the next could be published long enough, that signs with some minutes left."""
        clock.advance((slots.active.not_after - clock.now()).total_seconds() - 900)
        again = JwtKeys(path, clock, TTL)
        assert timedelta(minutes=10) == again.active.not_after - again.next_change

    @pytest.mark.parametrize("days", [-400, -1, 1, 16, 29, 400])
    def test_wall_clock_set(self, slots, clock, days):
        """Whatever the wall clock is set to, there is a key that signs, and keys follow each other from there on."""
        clock.step_wall(days * 86_400.0)
        for _ in range(2):
            slots.maintain()
        assert slots.active.not_after > clock.now()
        first = slots.active.id
        while slots.active.id == first:
            clock.advance(max(1.0, (slots.next_change - clock.now()).total_seconds()))
            slots.maintain()

    def test_wall_clock_set_ahead(self, slots, clock):
        """A wall clock that is set ahead does not make a key known that was published a moment ago."""
        first, made = slots.active.id, slots.prepare().id
        clock.advance(10)
        clock.step_wall(21 * 86_400.0)
        slots.maintain()
        assert (first, 3590.0) == (slots.active.id, (slots.next_change - clock.now()).total_seconds())
        clock.advance(3590)
        slots.maintain()
        assert made == slots.active.id

    @pytest.mark.parametrize("prepared", [False, True])
    def test_made_while_the_clock_stood_ahead(self, path, clock, prepared):
        """A key of a clock that was years ahead is followed once the clock is right, and not in years: the next is
        published for its overlap and signs, and the first verifies on for one life.
        """
        clock.step_wall(5 * 365 * 86_400.0)
        first = JwtKeys(path, clock, TTL)
        made = first.prepare().id if prepared else ""
        clock.step_wall(-5 * 365 * 86_400.0)
        slots = JwtKeys(path, clock, TTL)
        assert (first.active.id, timedelta(hours=1)) == (slots.active.id, slots.next_change - clock.now())
        assert slots.prepared.id != made
        follower = slots.prepared.id
        clock.advance(3600)
        slots.maintain()
        assert (follower, [first.active.id]) == (slots.active.id, [each.id for each in slots.old])
        assert TTL == slots.old[0].not_after - clock.now()
        assert slots.active.at(1 / 2) >= slots.next_change
        for _ in range(2):  # and from there on as ever
            published, left = self.published(slots, clock)
            assert (True, True) == (published >= timedelta(hours=1), abs(left - TTL / 3) < timedelta(minutes=1))

    @pytest.mark.parametrize("restarted", [False, True])
    @pytest.mark.parametrize("old", [False, True])
    def test_a_clock_that_is_ahead_for_a_while(self, path, clock, restarted, old):
        """A clock that stands beyond a key's end for a while, also as the agent starts, does not take the key away."""
        slots = JwtKeys(path, clock, TTL)
        first = slots.active.id
        if old:
            slots.activate(slots.prepare().id)
        clock.step_wall(40 * 86_400.0)
        slots = JwtKeys(path, clock, TTL) if restarted else slots
        for _ in range(3):
            slots.maintain()
            clock.advance(10)
        assert slots.active.created > clock.now() - timedelta(minutes=1)
        clock.step_wall(-40 * 86_400.0)
        for again in (slots, JwtKeys(path, clock, TTL)):
            again.maintain()
            assert first in again.public()
        clock.advance(31 * 86_400.0)
        slots.maintain()
        assert first not in slots.public()

    def test_one_that_had_ended_when_the_agent_started(self, path, clock):
        """A key that had ended by the wall clock is published on for an hour of running, and no longer."""
        first = JwtKeys(path, clock, TTL).active.id
        clock.advance(31 * 86_400.0)
        slots = JwtKeys(path, clock, TTL)
        assert [OLD, ACTIVE] == states(slots)
        assert timedelta(hours=1) == slots.next_change - clock.now()
        clock.advance(3_599)
        assert (False, True) == (slots.maintain(), first in slots.public())
        clock.advance(1)
        assert (True, [ACTIVE]) == (slots.maintain(), states(slots))

    @pytest.mark.parametrize("kind", ["root", "jwt"])
    def test_a_clock_that_is_behind_for_a_while(self, path, clock, kind):
        """A machine whose clock starts in 1970 loses no key: what signed before signs again once the clock is set."""
        made = Roots(path, clock, DOMAIN, ec.SECP256R1(), TTL) if kind == "root" else JwtKeys(path, clock, TTL)
        first = made.active.id
        clock.step_wall(-50 * 365 * 86_400.0)
        again = type(made)(path, clock, DOMAIN, ec.SECP256R1(), TTL) if kind == "root" else JwtKeys(path, clock, TTL)
        clock.advance(60)
        again.maintain()
        clock.step_wall(50 * 365 * 86_400.0)
        again.maintain()
        assert ([first], [ACTIVE]) == ([each.id for each in again.all], states(again))

    def test_a_taint_does_not_wait(self, slots):
        """When the key that signs is to be replaced, the next signs at once."""
        first = slots.active.id
        assert slots.replace(first).tainted
        assert ([OLD, ACTIVE], True) == (states(slots), slots.active.id != first)

    def test_a_taint_takes_the_prepared_one(self, slots):
        """The key that verifiers know already is the one that signs then."""
        first, made = slots.active.id, slots.prepare().id
        slots.replace(first)
        assert ([OLD, ACTIVE], made) == (states(slots), slots.active.id)

    def test_an_old_one_is_tainted_alone(self, slots):
        """What signs stays when another is tainted."""
        first = slots.active.id
        second = slots.activate(slots.prepare().id).id
        assert (True, second) == (slots.replace(first).tainted, slots.active.id)
