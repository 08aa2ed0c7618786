"""clock.py: the machine's clocks, and alarms on the boot clock."""

import asyncio
import time
from datetime import timedelta

import pytest
from fakes.clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from sojourn.runtime.clock import LONGEST_NAP_SECONDS, RINGING_SECONDS, STEP_SECONDS, Alarm, Alarms, SystemClock

DEADLINE_SECONDS = 20  # so that a hung test says where; nothing here depends on it


@pytest.fixture
def alarms(clock):
    return Alarms(clock)


@pytest.fixture
def rung():
    return []


class TestSystemClock:
    def test_now_is_utc(self):
        """Wall time is aware and in UTC."""
        assert timedelta(0) == SystemClock().now().utcoffset()

    def test_boot_is_the_boot_clock(self):
        """Boot time is the kernel's clock that goes on in suspend."""
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        boot = SystemClock().boot()
        after = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert before <= boot <= after


class TestFakeClock:
    def test_stands_still(self, clock):
        """The fake clock does not go on by itself."""
        assert clock.now() == clock.now()
        assert clock.boot() == clock.boot()

    def test_advance_moves_both(self, clock):
        """Time that goes by is seen on both clocks."""
        now, boot = clock.now(), clock.boot()
        clock.advance(90)
        assert now + timedelta(seconds=90) == clock.now()
        assert boot + 90 == clock.boot()

    def test_does_not_go_back(self, clock):
        """Time that goes by cannot be negative."""
        with pytest.raises(ValueError, match="back"):
            clock.advance(-1)

    @pytest.mark.parametrize("seconds", [86_400, -86_400])
    def test_step_moves_the_wall_only(self, clock, seconds):
        """A step of the wall clock is not seen on the boot clock."""
        now, boot = clock.now(), clock.boot()
        clock.step_wall(seconds)
        assert now + timedelta(seconds=seconds) == clock.now()
        assert boot == clock.boot()


class TestAlarm:
    def test_rings_once(self, rung):
        """An alarm that is rung twice does its action once."""
        alarm = Alarm(lambda: rung.append("a"))
        alarm.ring()
        alarm.ring()
        expected = ["a"]
        assert expected == rung

    def test_cancelled_does_not_ring(self, rung):
        """A cancelled alarm does nothing, however often it is cancelled."""
        alarm = Alarm(lambda: rung.append("a"))
        alarm.cancel()
        alarm.cancel()
        alarm.ring()
        assert alarm.cancelled
        assert not rung


class TestRingDue:
    def test_not_before_its_time(self, clock, alarms, rung):
        """An alarm does not ring a moment before its time, and rings at it."""
        alarms.after(10, lambda: rung.append("a"))
        clock.advance(9.5)
        alarms.ring_due()
        assert not rung
        clock.advance(0.5)
        alarms.ring_due()
        expected = ["a"]
        assert expected == rung

    def test_at_the_boot_time_given(self, clock, alarms, rung):
        """`at` takes a reading of the boot clock, not a duration."""
        alarms.at(clock.boot() + 3, lambda: rung.append("a"))
        clock.advance(3)
        alarms.ring_due()
        expected = ["a"]
        assert expected == rung

    def test_time_gone_by_rings_at_once(self, clock, alarms, rung):
        """An alarm for a time that is past rings at the next look."""
        alarms.at(clock.boot() - 100, lambda: rung.append("a"))
        alarms.ring_due()
        expected = ["a"]
        assert expected == rung

    def test_rings_once(self, clock, alarms, rung):
        """An alarm that has rung is forgotten."""
        alarms.after(1, lambda: rung.append("a"))
        clock.advance(1)
        alarms.ring_due()
        alarms.ring_due()
        expected = ["a"]
        assert expected == rung

    def test_in_the_order_of_their_times(self, clock, alarms, rung):
        """Alarms ring in the order of their times; of the same time, in the order in which they were set."""
        for name, seconds in (("c", 3), ("a", 1), ("b1", 2), ("b2", 2)):
            alarms.after(seconds, lambda name=name: rung.append(name))
        clock.advance(5)
        alarms.ring_due()
        expected = ["a", "b1", "b2", "c"]
        assert expected == rung

    def test_cancelled_is_passed_over(self, clock, alarms, rung):
        """A cancelled alarm neither rings nor keeps those behind it from ringing."""
        first = alarms.after(1, lambda: rung.append("a"))
        alarms.after(2, lambda: rung.append("b"))
        first.cancel()
        clock.advance(2)
        alarms.ring_due()
        expected = ["b"]
        assert expected == rung

    def test_action_may_set_an_alarm(self, clock, alarms, rung):
        """An alarm that is set by an action and is due rings in the same look."""
        alarms.after(1, lambda: alarms.after(0, lambda: rung.append("b")))
        clock.advance(1)
        alarms.ring_due()
        expected = ["b"]
        assert expected == rung

    def test_action_may_cancel_another(self, clock, alarms, rung):
        """An action can cancel an alarm that is due too and stands behind it."""
        later = alarms.at(clock.boot() + 2, lambda: rung.append("b"))
        alarms.at(clock.boot() + 1, later.cancel)
        clock.advance(2)
        alarms.ring_due()
        assert not rung

    def test_next_nap_is_until_the_next_alarm(self, clock, alarms):
        """The nap ends with the next alarm's time."""
        alarms.after(100, lambda: None)
        alarms.after(0.5, lambda: None)
        expected = 0.5
        assert expected == alarms.ring_due()

    def test_nap_is_bounded(self, alarms):
        """The boot clock is looked at often, even if the next alarm is far or there is none."""
        longest = LONGEST_NAP_SECONDS
        assert longest == alarms.ring_due()
        alarms.after(3600, lambda: None)
        assert longest == alarms.ring_due()

    def test_cancelled_does_not_shorten_the_nap(self, alarms):
        """A cancelled alarm at the head wakes nobody."""
        alarms.after(0.25, lambda: None).cancel()
        alarms.after(0.75, lambda: None)
        expected = 0.75
        assert expected == alarms.ring_due()

    @pytest.mark.parametrize("step", [3600, -3600, 86_400 * 3650])
    def test_step_of_the_wall_clock_changes_nothing(self, clock, alarms, rung, step):
        """A step of the wall clock neither brings an alarm nearer nor puts it off."""
        alarms.after(10, lambda: rung.append("a"))
        clock.step_wall(step)
        alarms.ring_due()
        assert not rung
        clock.advance(10)
        alarms.ring_due()
        expected = ["a"]
        assert expected == rung

    @given(
        times=st.lists(st.integers(0, 50), max_size=30),
        cancelled=st.sets(st.integers(0, 29)),
        passed=st.integers(0, 50),
    )
    def test_rings_exactly_what_is_due(self, times, cancelled, passed):
        """What rings is what is due and not cancelled, in order of time, and what is not yet due rings later."""
        clock = FakeClock(boot=0.0)
        alarms = Alarms(clock)
        rung = []
        made = [
            alarms.at(boot, lambda boot=boot, index=index: rung.append((boot, index)))
            for index, boot in enumerate(times)
        ]
        for index in cancelled:
            if index < len(made):
                made[index].cancel()
        wanted = sorted((boot, index) for index, boot in enumerate(times) if index not in cancelled)
        clock.advance(passed)
        alarms.ring_due()
        assert [pair for pair in wanted if pair[0] <= passed] == rung
        clock.advance(50)
        alarms.ring_due()
        assert wanted == rung

    def test_much_that_is_due_together(self, clock, alarms, rung):
        """Alarms that take long are rung in slices, so that others have a turn, and all of them in the end."""

        def busy():
            clock.advance(RINGING_SECONDS * 0.6)
            rung.append("a")

        for _ in range(5):
            alarms.after(1, busy)
        clock.advance(1)
        assert (0.0, 2) == (alarms.ring_due(), len(rung))
        assert (0.0, 4) == (alarms.ring_due(), len(rung))
        assert (LONGEST_NAP_SECONDS, 5) == (alarms.ring_due(), len(rung))


class TestSteps:
    @pytest.fixture
    def heard(self, alarms):
        found = []
        alarms.on_step(lambda: found.append("first"))
        alarms.on_step(lambda: found.append("second"))
        return found

    @pytest.mark.parametrize("step", [STEP_SECONDS, -STEP_SECONDS, 86_400, -86_400])
    def test_is_told_once(self, clock, alarms, heard, step):
        """A step of the wall clock is told once, to all who asked, in the order in which they did."""
        clock.step_wall(step)
        alarms.ring_due()
        alarms.ring_due()
        assert ["first", "second"] == heard

    def test_back_again(self, clock, alarms, heard):
        """A step that is taken back is told as well."""
        for step in (86_400, -86_400):
            clock.step_wall(step)
            alarms.ring_due()
        assert 4 == len(heard)

    @pytest.mark.parametrize("step", [STEP_SECONDS * 0.9, -STEP_SECONDS * 0.9])
    def test_small_ones(self, clock, alarms, heard, step):
        """What is less than certificates have slack for is no step; many small ones are."""
        clock.step_wall(step)
        alarms.ring_due()
        assert [] == heard
        clock.step_wall(step)
        alarms.ring_due()
        assert 2 == len(heard)

    def test_time_that_goes_by(self, clock, alarms, heard):
        """Time that goes by on both clocks, as in a sleep of the machine, is no step."""
        clock.advance(86_400)
        alarms.ring_due()
        assert [] == heard

    def test_before_the_alarms(self, clock, alarms, heard):
        """A step is told before the alarms that are due with it ring."""
        alarms.after(1, lambda: heard.append("alarm"))
        clock.advance(1)
        clock.step_wall(86_400)
        alarms.ring_due()
        assert ["first", "second", "alarm"] == heard

    def test_one_that_raises(self, clock, alarms):
        """One who asked and raises keeps neither the others nor the alarms from theirs."""
        heard = []
        alarms.on_step(lambda: 1 / 0)
        alarms.on_step(lambda: heard.append("second"))
        alarms.after(1, lambda: heard.append("alarm"))
        clock.advance(1)
        clock.step_wall(86_400)
        alarms.ring_due()
        assert ["second", "alarm"] == heard


class TestRun:
    @pytest.fixture
    async def running(self, alarms, monkeypatch):
        # so that the runner naps until it is woken: a look in between would hide that nobody wakes it
        monkeypatch.setattr("sojourn.runtime.clock.LONGEST_NAP_SECONDS", 3600.0)
        task = asyncio.create_task(alarms.run())
        yield task
        task.cancel()
        await asyncio.wait([task])

    async def test_rings_what_is_due_at_the_start(self, clock, alarms):
        """An alarm that came due before `run` rings when `run` begins."""
        done = asyncio.Event()
        alarms.after(1, done.set)
        clock.advance(1)
        task = asyncio.create_task(alarms.run())
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await done.wait()
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled()

    async def test_wakes_for_an_earlier_alarm(self, alarms, running):
        """An alarm that is earlier than all others wakes the sleeping runner."""
        alarms.after(3600, lambda: None)
        done = asyncio.Event()
        await asyncio.sleep(0)  # the runner looks, and naps
        alarms.after(0, done.set)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await done.wait()
        assert not running.done()

    async def test_runs_on_after_an_alarm(self, alarms, running):
        """The runner goes on after each alarm."""
        for _ in range(3):
            done = asyncio.Event()
            await asyncio.sleep(0)  # the runner looks, and naps
            alarms.after(0, done.set)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await done.wait()
        assert not running.done()


def test_one_alarm_that_raises(caplog):
    """An alarm whose action raises stops neither the others nor whoever rings them."""
    clock = FakeClock()
    alarms = Alarms(clock)
    rung = []
    alarms.after(1, lambda: 1 / 0)
    alarms.after(1, lambda: rung.append("second"))
    clock.advance(1)
    alarms.ring_due()
    assert ["second"] == rung
