"""deadlines.py: tasks end when their time is up, or when they were not used for too long."""

import pytest
from fakes.clock import FakeClock
from fakes.task_room import Room
from fakes.task_types import TICKETS, task_type

TYPES = {
    "triage": task_type(),
    "idle": task_type("idle", idle_timeout='"60s"'),
    "asked": task_type("asked", idle_timeout='"60s"', approval='{within = "90s"}'),
}


@pytest.fixture
async def room():
    async with Room(FakeClock(), TYPES).running() as room:
        yield room


def later(room, seconds):
    room.clock.advance(seconds)
    room.alarms.ring_due()


class TestTimeIsUp:
    async def test_to_the_second(self, room):
        """A task ends at its deadline and not before, by the boot clock."""
        task = await room.begin(max_seconds=30)
        room.clock.step_wall(86_400)
        later(room, 29.75)
        assert task.live
        later(room, 0.25)
        assert ("expired", "deadline") == (task.state, task.reason)

    async def test_looked_at_before_the_alarm(self, room):
        """Whoever looks at a task at its deadline finds it ended, though no alarm has rung yet."""
        task = await room.begin(max_seconds=30)
        room.clock.advance(29.75)
        room.engine.deadlines.check(task)
        assert task.live
        room.clock.advance(0.25)
        for _ in range(2):  # one that has ended is left alone
            room.engine.deadlines.check(task)
            assert ("expired", "deadline") == (task.state, task.reason)

    async def test_while_it_waits(self, room):
        """One that waits for approval ends as never approved, and is not idle meanwhile."""
        task = await room.begin("asked")
        later(room, 89)
        assert "pending" == task.state
        later(room, 1)
        assert ("expired", "approval_expired") == (task.state, task.reason)


class TestIdle:
    async def test_not_used(self, room):
        """A task that is not used ends so long after it was used last, and not before."""
        task = await room.begin("idle")
        for _ in range(3):
            later(room, 59)
            await room.engine.token(task, TICKETS, ())
        later(room, 59.75)
        assert task.live
        later(room, 0.25)
        assert ("expired", "idle") == (task.state, task.reason)

    async def test_looked_at_before_the_alarm(self, room):
        """Whoever looks at an idle task finds it ended, though no alarm has rung yet."""
        task = await room.begin("idle")
        room.clock.advance(59.75)
        room.engine.deadlines.check(task)
        assert task.live
        room.clock.advance(0.25)
        for _ in range(2):
            room.engine.deadlines.check(task)
            assert ("expired", "idle") == (task.state, task.reason)

    async def test_watched_anew(self, room):
        """A task that is watched again has the alarms of now, and none of before; one that is late ends at once."""
        task = await room.begin("idle")
        before = list(task.alarms)
        room.engine.deadlines.watch(task)
        assert 2 == len(task.alarms)
        assert not {id(each) for each in before} & {id(each) for each in task.alarms}
        room.clock.advance(60)
        room.engine.deadlines.watch(task)
        assert ("expired", "idle") == (task.state, task.reason)

    async def test_forgotten(self, room):
        """A task that is watched no more does not end by itself."""
        task = await room.begin("idle", max_seconds=90)
        room.engine.deadlines.forget(task)
        later(room, 200)
        assert task.live

    async def test_a_type_that_never_is(self, room):
        """A task whose type says nothing of it is never idle."""
        task = await room.begin()
        assert 1 == len(task.alarms)
        later(room, 14 * 60)
        assert task.live
