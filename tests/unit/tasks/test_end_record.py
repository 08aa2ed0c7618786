"""tasks/end_record.py: the record of an end says what the task's life was, so that nobody looks for another."""

import json

import pytest
from fakes.clock import FakeClock
from fakes.task_room import Room
from fakes.task_types import TICKETS, task_type
from sojourn.tasks.end_record import end_of_left
from sojourn.tasks.task import ACTIVE, PENDING


@pytest.fixture
async def room():
    types = {"triage": task_type(), "asks": task_type("asks", approval="{}")}
    async with Room(FakeClock(), types).running() as made:
        yield made


async def ended(room, task):
    await room.engine.complete(task, failed=False)
    return room.store.fields("task_ended")[-1]


async def test_a_life(room):
    """For how long it was active, how it was held, and what it and its family spent stand in the record of its end."""
    task = await room.begin()
    await room.engine.token(task, TICKETS, ("ticket:read",))
    room.clock.advance(2.5)
    said = await ended(room, task)
    assert (2.5, "process", [1, 0]) == (said["seconds"], said["binding"], said["spent"])
    assert task.type.digest[:16] == said["type_version"]
    assert {"depth", "children"}.isdisjoint(said)


async def test_one_that_never_began(room):
    """A task that waited for approval and ended has no life."""
    task = await room.begin("asks")
    assert PENDING == task.state
    assert "seconds" not in await ended(room, task)


async def test_a_clock_that_was_set_back(room):
    """A life is never less than nothing."""
    task = await room.begin()
    room.clock.step_wall(-60)
    assert 0 == (await ended(room, task))["seconds"]


class TestLeft:
    async def document(self, room, **changes):
        task = await room.begin()
        await room.engine.token(task, TICKETS, ("ticket:read",))
        task.count_calls(TICKETS, "ticket:read", 4)
        return {**json.loads(json.dumps(task.record().document)), **changes}

    async def test_says_the_same(self, room):
        """The end of a task that an earlier run left says what its row says."""
        document = await self.document(room)
        room.clock.advance(3)
        said = end_of_left(document, ACTIVE, room.clock.now())
        assert (3, "process", [1, 4]) == (said["seconds"], said["binding"], said["spent"])
        (row,) = [each for each in said["use"] if each["action"] == "ticket:read"]
        assert (1, 4) == (row["tokens"], row["calls"])
        assert document["type_digest"][:16] == said["type_version"]

    async def test_while_nobody_was_there(self, room):
        """A task is said to have lived no longer than it could, however long the agent was down."""
        document = await self.document(room)
        room.clock.advance(10**6)
        assert 15 * 60 == end_of_left(document, ACTIVE, room.clock.now())["seconds"]

    async def test_one_that_waited(self, room):
        """A task that waited for approval when the agent ended has no life."""
        assert None is end_of_left(await self.document(room), PENDING, room.clock.now())["seconds"]

    @pytest.mark.parametrize(
        "damage", [{"grants": 7}, {"uses": [[1]]}, {"created_at": "x"}, {"type_digest": None}, {"depth": "1"}]
    )
    async def test_a_row_that_is_damaged(self, room, damage):
        """Of a row that cannot be read nothing is said, and the task ends all the same."""
        assert {} == end_of_left(await self.document(room, **damage), ACTIVE, room.clock.now())
