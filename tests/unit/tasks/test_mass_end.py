"""mass_end.py: many tasks end some at a time, and none of them is good for anything meanwhile."""

import asyncio
from itertools import pairwise

import pytest
from fakes.clock import FakeClock
from fakes.task_room import TRIAGE_ENTRY, Room
from fakes.task_types import TICKETS, task_type
from sojourn.errors import TaskOver
from sojourn.identity.entry_changes import Change
from sojourn.limits import TASKS_ENDED_AT_ONCE
from sojourn.tasks.mass_end import MassEnd, end_all

MANY = 3 * TASKS_ENDED_AT_ONCE + 1


@pytest.fixture
async def room():
    async with Room(FakeClock(), {"triage": task_type()}).running() as room:
        yield room


def ends(tasks):
    return {(task.state, task.reason) for task in tasks}


async def test_in_turns(room):
    """However many tasks are ended, others have their turn after some of them; all have ended when it returns."""
    tasks = [await room.begin() for _ in range(MANY)]
    other = await room.begin()
    left = []

    async def look():
        while True:
            left.append(sum(task.live for task in tasks))
            await asyncio.sleep(0)

    looking = asyncio.ensure_future(look())
    await end_all(room.engine, tasks, "revoked", "admin")
    looking.cancel()
    assert TASKS_ENDED_AT_ONCE >= max(before - after for before, after in pairwise(left))
    assert {("revoked", "admin")} == ends(tasks)
    assert other.live


async def test_over_at_once(room):
    """From the first step on whoever uses one of them is told that it is over, and gets no token, also of one that has
    not ended yet; one that ended before stays as it is.
    """
    tasks = [await room.begin() for _ in range(MANY)]
    room.engine.end(tasks[1], "completed", "success")
    MassEnd(room.engine).end_all(tasks, "revoked", "identity_revoked")
    assert (False, True) == (tasks[0].live, tasks[-1].live)
    with pytest.raises(TaskOver, match="identity_revoked"):
        room.engine.check_active(tasks[-1])
    with pytest.raises(TaskOver, match="identity_revoked"):
        await room.engine.token(tasks[-2], TICKETS, ())
    for task in tasks:
        await room.ended(task)
    assert {("revoked", "identity_revoked"), ("completed", "success")} == ends(tasks)


async def test_a_stop_meanwhile(room):
    """A task that was to end does so for that reason, although the agent stops before its turn."""
    tasks = [await room.begin() for _ in range(MANY)]
    MassEnd(room.engine).end_all(tasks, "revoked", "identity_revoked")
    room.engine.close()
    assert {("revoked", "identity_revoked")} == ends(tasks)


async def test_of_a_lost_entry(room):
    """Of an entry that is deleted all tasks are over, however many."""
    tasks = [await room.begin() for _ in range(MANY)]
    ending = MassEnd(room.engine)
    ending.entries_changed([Change(TRIAGE_ENTRY, None)])
    assert all(task.doom or not task.live for task in tasks)
    await ending.quiet()
    assert {("revoked", "attestation_changed")} == ends(tasks)
