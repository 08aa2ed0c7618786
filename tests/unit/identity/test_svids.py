"""svids.py: an SVID is issued at first use and renewed in time while somebody watches."""

from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.authorities import FailingIssuer, authority_in
from fakes.clock import FakeClock
from fakes.registrations import entry
from sojourn.clock import Alarms
from sojourn.identity.svids import RETRY_SECONDS, X509Svids
from sojourn.limits import ROTATION_JITTER_SHARE

TTL = timedelta(hours=1)
WEB = entry("/web")
LATEST = 0.5 + 0.5 * ROTATION_JITTER_SHARE  # of its life, when an SVID is renewed
EARLIEST = 0.5 - 0.5 * ROTATION_JITTER_SHARE


class Room:
    def __init__(self, folder):
        self.clock = FakeClock()
        self.alarms = Alarms(self.clock)
        self.issuer = FailingIssuer(authority_in(folder, self.clock))
        self.audited = []
        self.rotated = []
        self.svids = X509Svids(
            self.issuer, self.clock, self.alarms, TTL, lambda entry, svid: self.audited.append((entry.id, svid.serial))
        )
        self.svids.on_rotation(self.rotated.append)

    def goes_by(self, time):
        """Let time go by and whatever is due ring."""
        self.clock.advance(time.total_seconds())
        self.alarms.ring_due()


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path / "keys")


class TestGet:
    def test_same_until_renewed(self, room):
        """Everyone gets the same SVID of an entry."""
        assert room.svids.get(WEB) is room.svids.get(WEB)
        assert 1 == len(room.audited)

    def test_for_the_entry_s_id_only(self, room):
        """What is signed is the entry's SPIFFE ID."""
        assert WEB.spiffe_id == room.svids.get(WEB).spiffe_id

    @pytest.mark.parametrize(("ttl", "expected"), [(0, TTL), (10, timedelta(seconds=10)), (600, timedelta(minutes=10))])
    def test_life(self, room, ttl, expected):
        """An SVID lives as long as its entry says, or as the default if that says nothing."""
        assert room.clock.now() + expected == room.svids.get(replace(WEB, x509_svid_ttl=ttl)).not_after

    def test_each_is_audited(self, room):
        """Each SVID that is signed is told to the audit, by its serial."""
        svid = room.svids.get(WEB)
        assert [(WEB.id, svid.serial)] == room.audited

    @pytest.mark.parametrize("change", [{"dns_names": ("a.example",)}, {"x509_svid_ttl": 60}, {"revision": 1}])
    def test_a_changed_entry_gets_another(self, room, change):
        """An SVID that was made for an older form of the entry is not given."""
        old = room.svids.get(WEB)
        assert old is not room.svids.get(replace(WEB, **change))

    def test_expired_is_never_given(self, room):
        """An SVID that has ended is not given, whether or not the alarm has rung."""
        old = room.svids.get(WEB)
        room.clock.advance(TTL.total_seconds())
        assert room.svids.get(WEB).not_after > room.clock.now()
        assert old is not room.svids.get(WEB)

    def test_forgotten(self, room):
        """Whoever asks after an entry's SVID was forgotten gets a new one, and the old alarm is off."""
        old = room.svids.get(WEB)
        room.svids.forget(WEB.id)
        assert [] == room.svids.kept()
        assert old is not room.svids.get(WEB)
        room.svids.forget("nobody")


class TestRotation:
    def test_at_half_of_its_life(self, room):
        """A watched SVID is renewed around half of its life, by at most the jitter earlier or later."""
        room.svids.watch(WEB.id)
        old = room.svids.get(WEB)
        room.goes_by(TTL * EARLIEST - timedelta(seconds=1))
        assert (old, []) == (room.svids.get(WEB), room.rotated)
        room.goes_by(TTL * (LATEST - EARLIEST) + timedelta(seconds=2))
        assert [WEB.id] == room.rotated
        assert old is not room.svids.get(WEB)

    def test_again_and_again(self, room):
        """A watched SVID is renewed for as long as somebody watches; old and new overlap."""
        room.svids.watch(WEB.id)
        before = room.svids.get(WEB)
        for count in range(1, 6):
            room.goes_by(TTL * LATEST + timedelta(seconds=1))
            after = room.svids.get(WEB)
            assert count == len(room.rotated)
            assert after.leaf.not_valid_before_utc < before.not_after
            before = after

    def test_shortest_life(self, room):
        """An SVID of ten seconds is renewed with seconds to spare."""
        short = replace(WEB, x509_svid_ttl=10)
        room.svids.watch(WEB.id)
        room.svids.get(short)
        for _ in range(10):
            room.goes_by(timedelta(seconds=10 * LATEST + 0.01))
            assert room.svids.get(short).not_after - room.clock.now() > timedelta(seconds=4)

    def test_is_told_once_the_new_one_is_there(self, room):
        """Whoever hears of a rotation can fetch the new SVID at once."""
        room.svids.watch(WEB.id)
        old = room.svids.get(WEB)
        seen = []
        room.svids.on_rotation(lambda _: seen.append(room.svids.get(WEB)))
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert 1 == len(seen)
        assert old is not seen[0]

    def test_nobody_watches(self, room):
        """An SVID that nobody watches is dropped instead of renewed."""
        room.svids.get(WEB)
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert ([], [], 1) == (room.svids.kept(), room.rotated, len(room.audited))

    def test_no_copy_stays(self, room):
        """One that is due while nobody watches is told to those who hold copies of its key."""
        told = []
        room.svids.on_forget(lambda: told.append(len(room.svids.kept())))
        room.svids.get(WEB)
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert [0] == told

    def test_the_last_watcher_leaves(self, room):
        """An SVID is renewed until the last of its watchers has gone."""
        for _ in range(2):
            room.svids.watch(WEB.id)
        room.svids.get(WEB)
        room.svids.unwatch(WEB.id)
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert 1 == len(room.rotated)
        room.svids.unwatch(WEB.id)
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert (1, []) == (len(room.rotated), room.svids.kept())

    @pytest.mark.parametrize("step", [-86_400 * 30, 3_000])
    def test_a_step_of_the_wall_clock(self, room, step):
        """A wall clock that is set does not move a rotation: its alarm is on the boot clock."""
        room.svids.watch(WEB.id)
        room.svids.get(WEB)
        room.clock.step_wall(step)
        room.alarms.ring_due()
        assert [] == room.rotated

    def test_jitter_differs(self, room):
        """SVIDs that were issued together are not renewed together."""
        for number in range(20):
            room.svids.get(entry(f"/n{number}"))
        assert len({kept.rotate_at for kept in room.svids.kept()}) > 10

    def test_said_and_done(self, room):
        """An SVID is renewed when `kept` says so."""
        room.svids.watch(WEB.id)
        room.svids.get(WEB)
        (kept,) = room.svids.kept()
        room.goes_by(kept.rotate_at - room.clock.now() - timedelta(milliseconds=1))
        assert [] == room.rotated
        room.goes_by(timedelta(milliseconds=2))
        assert [WEB.id] == room.rotated


class TestFailure:
    def test_the_old_one_is_served_on(self, room):
        """If renewing fails, the SVID that is still good is served, nobody is told, and it is tried again soon."""
        room.svids.watch(WEB.id)
        old = room.svids.get(WEB)
        room.issuer.failing = True
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert (old, []) == (room.svids.get(WEB), room.rotated)
        room.goes_by(timedelta(seconds=RETRY_SECONDS))
        assert old is room.svids.get(WEB)
        room.issuer.failing = False
        room.goes_by(timedelta(seconds=RETRY_SECONDS))
        assert [WEB.id] == room.rotated
        assert old is not room.svids.get(WEB)

    def test_never_beyond_its_end(self, room):
        """If renewing fails until the SVID ends, there is an error and not an expired SVID."""
        room.svids.watch(WEB.id)
        room.svids.get(WEB)
        room.issuer.failing = True
        room.goes_by(TTL)
        with pytest.raises(RuntimeError):
            room.svids.get(WEB)
