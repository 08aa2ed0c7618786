"""expiry.py: tasks end when their time is up, or when they were not used for too long."""

import pytest
from fakes.approvals import ALICE, approve
from fakes.children import holder_of
from fakes.clock import FakeClock
from fakes.task_room import TRIAGE_ENTRY, Room
from fakes.task_types import TICKETS, task_type
from sojourn.limits import TASKS_ENDED_AT_ONCE
from sojourn.tasks.begin import BeginRequest, Bond

TYPES = {
    "triage": task_type(),
    "idle": task_type("idle", idle_timeout='"60s"'),
    "approved": task_type("approved", approval='{within = "90s"}'),
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


async def one_shot(room, name="triage", seconds=30.0):
    return await room.beginning.begin(
        room.peer,
        (TRIAGE_ENTRY,),
        BeginRequest(name, {}, max_seconds=seconds),
        Bond(holder_of(room.process), "one-shot"),
    )


class TestTogether:
    async def test_of_one_second(self, room):
        """One-shot tasks whose time is up in the same second end with it, some in a step; what is used of them before
        has ended by then.
        """
        tasks = [await one_shot(room, seconds=29.25 + number % 2 / 2) for number in range(2 * TASKS_ENDED_AT_ONCE)]
        other = await one_shot(room, seconds=31)
        later(room, 29.75)
        room.engine.deadlines.check(tasks[0])
        assert [False, True] == [task.live for task in tasks[:2]]
        room.clock.advance(0.25)
        room.alarms.ring_due()
        assert {("expired", "deadline")} == {(task.state, task.reason) for task in tasks}
        assert other.live
        later(room, 1)
        assert (False, {}) == (other.live, room.engine.deadlines._together)

    async def test_ended_before(self, room):
        """One that has ended before its time stays what it is then, and until then nothing of it is kept but its ID."""
        first, second = await one_shot(room), await one_shot(room)
        room.engine.end(first, "revoked", "admin")
        assert [[first.id, second.id]] == list(room.engine.deadlines._together.values())
        later(room, 30)
        assert (("revoked", "admin"), "expired") == ((first.state, first.reason), second.state)
        assert {} == room.engine.deadlines._together

    async def test_more_time(self, room):
        """One that has more time by then is left alone."""
        task = await one_shot(room)
        task.deadline += 5
        room.engine.deadlines.watch(task)
        later(room, 30)
        assert task.live
        later(room, 5)
        assert ("expired", "deadline") == (task.state, task.reason)

    async def test_nothing_is_left_of_a_second(self, room):
        """However often tasks begin and end before their time, one alarm is set for a second, and none behind it."""

        def armed():
            return sum(not each.cancelled for *_, each in room.alarms._heap)

        before = armed()
        for _ in range(5):
            task = await one_shot(room)
            assert before + 1 == armed()
            room.engine.end(task, "revoked", "admin")
        later(room, 30)
        assert before == armed()

    async def test_one_that_cannot_end(self, room, monkeypatch):
        """Whatever goes wrong with one, the others of that second end."""
        tasks = [await one_shot(room) for _ in range(3)]
        end = room.engine.deadlines._end

        def fails(task, state, reason):
            if task is tasks[0]:
                raise ZeroDivisionError
            end(task, state, reason)

        monkeypatch.setattr(room.engine.deadlines, "_end", fails)
        later(room, 30)
        room.alarms.ring_due()
        assert [True, False, False] == [task.live for task in tasks]

    async def test_that_waited_for_approval(self, room):
        """One that was agreed to lives as long as it may from then on, and not until nobody would have agreed."""
        task = await one_shot(room, "approved", seconds=60)
        assert "pending" == task.state
        later(room, 80)
        await approve(room, task, ALICE)
        assert "active" == task.state
        later(room, 15)
        assert "active" == task.state
        later(room, 45)
        assert ("expired", "deadline") == (task.state, task.reason)


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
