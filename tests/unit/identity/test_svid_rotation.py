"""svid_rotation.py: an SVID is issued at first use and renewed in time while somebody watches."""

from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.authorities import FailingIssuer, authority_in
from fakes.clock import FakeClock
from fakes.registrations import entry
from sojourn.errors import Unavailable
from sojourn.identity import svid_rotation as svids_module
from sojourn.identity.svid_rotation import RETRY_SECONDS, Svids
from sojourn.identity.svid_signers import x509_signer
from sojourn.limits import ROTATION_JITTER_SHARE
from sojourn.runtime.clock import Alarms

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
        self.svids = Svids(
            x509_signer(self.issuer, TTL),
            self.clock,
            self.alarms,
            lambda entry, svid: self.audited.append((entry.id, svid.serial)),
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
        assert room.svids.look(WEB) is room.svids.look(WEB)
        assert 1 == len(room.audited)

    def test_for_the_entry_s_id_only(self, room):
        """What is signed is the entry's SPIFFE ID."""
        assert WEB.spiffe_id == room.svids.look(WEB).spiffe_id

    @pytest.mark.parametrize(("ttl", "expected"), [(0, TTL), (10, timedelta(seconds=10)), (600, timedelta(minutes=10))])
    def test_life(self, room, ttl, expected):
        """An SVID lives as long as its entry says, or as the default if that says nothing."""
        assert room.clock.now() + expected == room.svids.look(replace(WEB, x509_svid_ttl=ttl)).not_after

    def test_each_is_audited(self, room):
        """Each SVID that is signed is told to the audit, by its serial."""
        svid = room.svids.look(WEB)
        assert [(WEB.id, svid.serial)] == room.audited

    @pytest.mark.parametrize("change", [{"dns_names": ("a.example",)}, {"x509_svid_ttl": 60}, {"revision": 1}])
    def test_a_changed_entry_gets_another(self, room, change):
        """An SVID that was made for an older form of the entry is not given."""
        old = room.svids.look(WEB)
        assert old is not room.svids.look(replace(WEB, **change))

    def test_expired_is_never_given(self, room):
        """An SVID that has ended is not given, whether or not the alarm has rung."""
        old = room.svids.look(WEB)
        room.clock.advance(TTL.total_seconds())
        assert room.svids.look(WEB).not_after > room.clock.now()
        assert old is not room.svids.look(WEB)

    def test_forgotten(self, room):
        """Whoever asks after an entry's SVID was forgotten gets a new one, and the old alarm is off."""
        old = room.svids.look(WEB)
        room.svids.forget_entry(WEB.id)
        assert [] == room.svids.kept()
        assert old is not room.svids.look(WEB)
        room.svids.forget_entry("nobody")


class TestRotation:
    def test_at_half_of_its_life(self, room):
        """A watched SVID is renewed around half of its life, by at most the jitter earlier or later."""
        room.svids.watch(WEB.key)
        old = room.svids.look(WEB)
        room.goes_by(TTL * EARLIEST - timedelta(seconds=1))
        assert (old, []) == (room.svids.look(WEB), room.rotated)
        room.goes_by(TTL * (LATEST - EARLIEST) + timedelta(seconds=2))
        assert [WEB.key] == room.rotated
        assert old is not room.svids.look(WEB)

    def test_again_and_again(self, room):
        """A watched SVID is renewed for as long as somebody watches; old and new overlap."""
        room.svids.watch(WEB.key)
        before = room.svids.look(WEB)
        for count in range(1, 6):
            room.goes_by(TTL * LATEST + timedelta(seconds=1))
            after = room.svids.look(WEB)
            assert count == len(room.rotated)
            assert after.leaf.not_valid_before_utc < before.not_after
            before = after

    def test_shortest_life(self, room):
        """An SVID of ten seconds is renewed with seconds to spare."""
        short = replace(WEB, x509_svid_ttl=10)
        room.svids.watch(WEB.key)
        room.svids.look(short)
        for _ in range(10):
            room.goes_by(timedelta(seconds=10 * LATEST + 0.01))
            assert room.svids.look(short).not_after - room.clock.now() > timedelta(seconds=4)

    def test_is_told_once_the_new_one_is_there(self, room):
        """Whoever hears of a rotation can fetch the new SVID at once."""
        room.svids.watch(WEB.key)
        old = room.svids.look(WEB)
        seen = []
        room.svids.on_rotation(lambda _: seen.append(room.svids.look(WEB)))
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert 1 == len(seen)
        assert old is not seen[0]

    def test_nobody_watches(self, room):
        """An SVID that nobody watches is dropped instead of renewed."""
        room.svids.look(WEB)
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert ([], [], 1) == (room.svids.kept(), room.rotated, len(room.audited))

    def test_no_copy_stays(self, room):
        """One that is due while nobody watches is told to those who hold copies of its key."""
        told = []
        room.svids.on_forget(lambda: told.append(len(room.svids.kept())))
        room.svids.look(WEB)
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert [0] == told

    def test_the_last_watcher_leaves(self, room):
        """An SVID is renewed until the last of its watchers has gone."""
        for _ in range(2):
            room.svids.watch(WEB.key)
        room.svids.look(WEB)
        room.svids.unwatch(WEB.key)
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert 1 == len(room.rotated)
        room.svids.unwatch(WEB.key)
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert (1, []) == (len(room.rotated), room.svids.kept())

    @pytest.mark.parametrize("step", [-86_400 * 30, 3_000])
    def test_a_step_of_the_wall_clock(self, room, step):
        """A wall clock that is set does not move a rotation: its alarm is on the boot clock."""
        room.svids.watch(WEB.key)
        room.svids.look(WEB)
        room.clock.step_wall(step)
        room.alarms.ring_due()
        assert [] == room.rotated

    def test_jitter_differs(self, room):
        """SVIDs that were issued together are not renewed together."""
        for number in range(20):
            room.svids.look(entry(f"/n{number}"))
        assert len({kept.rotate_at for kept in room.svids.kept()}) > 10

    def test_said_and_done(self, room):
        """An SVID is renewed when `kept` says so."""
        room.svids.watch(WEB.key)
        room.svids.look(WEB)
        (kept,) = room.svids.kept()
        room.goes_by(kept.rotate_at - room.clock.now() - timedelta(milliseconds=1))
        assert [] == room.rotated
        room.goes_by(timedelta(milliseconds=2))
        assert [WEB.key] == room.rotated


class TestUnwatched:
    """A template has as many identities as there are values, and values may change for ever."""

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch):
        monkeypatch.setattr(svids_module, "SVIDS_UNWATCHED_KEPT", 3)

    def kept(self, room):
        return [each.entry.spiffe_id.path for each in room.svids.kept()]

    def test_do_not_pile_up(self, room):
        """Of identities that nobody watches the last ones that were used are kept, and no trace of the others."""
        room.svids.look(WEB)
        for number in range(100):
            room.svids.look(entry(f"/{number}"))
            room.svids.look(WEB)
        assert {"/web", "/98", "/99"} == set(self.kept(room))
        assert 3 == len(room.svids._of_entry) == len(room.svids._unwatched)

    def test_once_they_were_watched(self, room):
        """Those whose streams have ended count too."""
        for number in range(100):
            each = entry(f"/{number}")
            room.svids.watch(each.key)
            room.svids.look(each)
            room.svids.unwatch(each.key)
        assert ["/97", "/98", "/99"] == self.kept(room)

    def test_no_copy_stays(self, room):
        """Whoever keeps copies of keys hears of each that is dropped."""
        dropped = []
        room.svids.on_forget(lambda: dropped.append(1))
        for number in range(10):
            room.svids.look(entry(f"/{number}"))
        assert 7 == len(dropped)

    def test_not_what_is_watched(self, room):
        """What somebody watches is kept, however many others come and go."""
        watched = [entry(f"/w{number}") for number in range(10)]
        for each in watched:
            room.svids.watch(each.key)
        served = [room.svids.look(each) for each in watched]
        for number in range(10):
            room.svids.look(entry(f"/{number}"))
        assert served == [room.svids.look(each) for each in watched]
        assert 13 == len(self.kept(room))

    def test_that_are_forgotten(self, room):
        """One that is dropped in another way takes no place."""
        for number in range(10):
            room.svids.look(entry(f"/{number}"))
            room.svids.forget(entry(f"/{number}").key)
        assert not room.svids._unwatched


class TestSteps:
    """A wall clock that is set; `alarms` tell of it as they do in the agent."""

    @pytest.fixture
    def stepped(self, room):
        room.alarms.on_step(room.svids.check_clock)

        def step(seconds):
            room.clock.step_wall(seconds)
            room.alarms.ring_due()

        return step

    def valid(self, room, svid):
        return svid.leaf.not_valid_before_utc <= room.clock.now() < svid.not_after

    @pytest.mark.parametrize("step", [86_400, -86_400], ids=["ahead", "back"])
    def test_of_a_day(self, room, stepped, step):
        """What is no longer, or not yet, valid is renewed at once, and those who watch are told."""
        room.clock.advance(2 * 86_400)  # the root is older than the step
        room.svids.watch(WEB.key)
        old = room.svids.look(WEB)
        stepped(step)
        assert [WEB.key] == room.rotated
        new = room.svids.look(WEB)
        assert (False, True, old.serial != new.serial) == (self.valid(room, old), self.valid(room, new), True)
        assert self.valid(room, new)

    @pytest.mark.parametrize("step", [86_400, -86_400], ids=["ahead", "back"])
    def test_before_it_was_noticed(self, room, step):
        """Who asks just after a step gets what is valid, and those who watch are told then."""
        room.clock.advance(2 * 86_400)
        room.svids.watch(WEB.key)
        room.svids.look(WEB)
        room.clock.step_wall(step)
        assert self.valid(room, room.svids.look(WEB))
        assert [WEB.key] == room.rotated

    @pytest.mark.parametrize("step", [86_400, -86_400], ids=["ahead", "back"])
    def test_the_next_rotation(self, room, stepped, step):
        """After a step renewal goes on as before, on the boot clock."""
        room.clock.advance(2 * 86_400)
        room.svids.watch(WEB.key)
        room.svids.look(WEB)
        stepped(step)
        room.goes_by(TTL * EARLIEST - timedelta(seconds=1))
        assert 1 == len(room.rotated)
        room.goes_by(TTL * (LATEST - EARLIEST) + timedelta(seconds=2))
        assert 2 == len(room.rotated)

    def test_of_less_than_its_life(self, room, stepped):
        """One that is brought nearer to its end is renewed sooner, so that it does not end before."""
        room.svids.watch(WEB.key)
        old = room.svids.look(WEB)
        stepped(20 * 60)
        assert ([], old) == (room.rotated, room.svids.look(WEB))
        room.goes_by(TTL * LATEST - timedelta(minutes=20) + timedelta(seconds=1))
        assert [WEB.key] == room.rotated

    def test_back_within_the_slack(self, room, stepped):
        """A small step back renews nothing, and puts no renewal off."""
        room.svids.watch(WEB.key)
        old = room.svids.look(WEB)
        stepped(-5)
        assert ([], old) == (room.rotated, room.svids.look(WEB))
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert [WEB.key] == room.rotated

    def test_there_and_back(self, room, stepped):
        """A clock that is set ahead and corrected leaves what is valid."""
        room.svids.watch(WEB.key)
        room.svids.look(WEB)
        for step in (86_400, -86_400):
            stepped(step)
            assert self.valid(room, room.svids.look(WEB))
        assert 2 == len(room.rotated)

    def test_there_and_back_between_two_looks(self, room, stepped):
        """One that was signed while the clock was wrong is renewed, even if that was for a moment only."""
        room.clock.step_wall(86_400)
        room.svids.watch(WEB.key)
        wrong = room.svids.look(WEB)
        stepped(-86_400)
        assert [WEB.key] == room.rotated
        assert (False, True) == (self.valid(room, wrong), self.valid(room, room.svids.look(WEB)))

    def test_many_at_once(self, room, stepped):
        """Every one that needs it is renewed, and said and done is the same."""
        entries = [entry(f"/n{number}") for number in range(50)]
        for each in entries:
            room.svids.watch(each.key)
            room.svids.look(each)
        stepped(86_400)
        assert {each.key for each in entries} == set(room.rotated)
        assert all(self.valid(room, kept.svid) for kept in room.svids.kept())
        assert all(kept.rotate_at > room.clock.now() for kept in room.svids.kept())

    def test_nobody_watches(self, room, stepped):
        """One that nobody watches is dropped, not renewed."""
        room.svids.look(WEB)
        stepped(86_400)
        assert ([], [], 1) == (room.svids.kept(), room.rotated, len(room.audited))

    def test_before_the_root(self, room, stepped):
        """On a clock that stands before the root certificate nothing is served, and those who watch are told."""
        room.svids.watch(WEB.key)
        room.svids.look(WEB)
        stepped(-86_400)
        assert [WEB.key] == room.rotated
        with pytest.raises(Unavailable, match="clock"):
            room.svids.look(WEB)
        room.clock.step_wall(86_400)
        assert self.valid(room, room.svids.look(WEB))


class TestSleep:
    @pytest.mark.parametrize("asleep", [3_700, 86_400, 86_400 * 40], ids=["an hour", "a day", "forty days"])
    def test_of_the_machine(self, room, asleep):
        """After a sleep that outlasts the certificate, or the keys that signed it, what is pushed is valid at once."""
        room.svids.watch(WEB.key)
        room.svids.look(WEB)
        room.clock.advance(asleep)
        room.alarms.ring_due()
        assert [WEB.key] == room.rotated
        (kept,) = room.svids.kept()
        assert kept.svid.leaf.not_valid_before_utc <= room.clock.now() < kept.svid.not_after


class TestFailure:
    def test_the_old_one_is_served_on(self, room):
        """If renewing fails, the SVID that is still good is served, nobody is told, and it is tried again soon."""
        room.svids.watch(WEB.key)
        old = room.svids.look(WEB)
        room.issuer.failing = True
        room.goes_by(TTL * LATEST + timedelta(seconds=1))
        assert (old, []) == (room.svids.look(WEB), room.rotated)
        room.goes_by(timedelta(seconds=RETRY_SECONDS))
        assert old is room.svids.look(WEB)
        room.issuer.failing = False
        room.goes_by(timedelta(seconds=RETRY_SECONDS))
        assert [WEB.key] == room.rotated
        assert old is not room.svids.look(WEB)

    def test_never_beyond_its_end(self, room):
        """If renewing fails until the SVID ends, there is an error and not an expired SVID."""
        room.svids.watch(WEB.key)
        room.svids.look(WEB)
        room.issuer.failing = True
        room.goes_by(TTL)
        with pytest.raises(RuntimeError):
            room.svids.look(WEB)


class TestOldestShare:
    def test_it_is_of_the_oldest_that_is_watched(self, room):
        """How much of its life is over is told of the oldest SVID that somebody watches, and of no other."""
        assert 0.0 == room.svids.oldest_share()
        room.svids.look(WEB)
        room.clock.advance(TTL.total_seconds() * 0.3)
        assert 0.0 == room.svids.oldest_share()
        room.svids.watch(WEB.key)
        assert 0.3 == pytest.approx(room.svids.oldest_share(), abs=0.001)
        other = entry("/other")
        room.svids.watch(other.key)
        room.svids.look(other)
        assert 0.3 == pytest.approx(room.svids.oldest_share(), abs=0.001)

    def test_one_that_could_not_be_renewed(self, room):
        """As long as an SVID cannot be renewed all of its life counts as over, also when its watcher has gone at its end."""
        room.svids.watch(WEB.key)
        room.svids.look(WEB)
        room.issuer.failing = True
        room.goes_by(TTL * 0.8)
        assert 1.0 == room.svids.oldest_share()
        room.goes_by(TTL * 0.4)
        assert 1.2 == pytest.approx(room.svids.oldest_share(), abs=0.001)
        room.svids.unwatch(WEB.key)
        assert 1.0 == room.svids.oldest_share()
        room.svids.watch(WEB.key)
        room.issuer.failing = False
        room.svids.look(WEB)
        assert 0.0 == room.svids.oldest_share()
