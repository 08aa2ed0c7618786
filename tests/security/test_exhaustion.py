"""Case 42: what one caller takes of tasks, and what a validator that does not read holds up."""

from collections.abc import AsyncIterator

import pytest
from fakes.clock import FakeClock
from fakes.task_room import Room, end_all
from fakes.task_types import TICKETS, task_type
from sojourn.errors import LimitExceeded
from sojourn.limits import ENDED_TASKS_KEPT, FEED_CHANGES_HELD, LIVE_TASKS_PER_UID

pytestmark = pytest.mark.full

BEGINS = 100_000


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room(FakeClock(), {"triage": task_type()})
    yield made
    made.end_everything()


@pytest.mark.timeout(240)
async def test_case_42_a_hundred_thousand_begins(room: Room) -> None:
    """One user has its share of live tasks and no more, however often it asks; when they end, a bounded part is kept."""
    refused = 0
    for _ in range(BEGINS):
        try:
            await room.begin()
        except LimitExceeded:
            refused += 1
    assert LIVE_TASKS_PER_UID == len(room.engine.tasks)
    assert BEGINS - LIVE_TASKS_PER_UID == refused
    assert LIVE_TASKS_PER_UID == len(room.store.rows)  # what was refused left nothing on disk
    assert 1 == len(room.holders)  # one process, one descriptor
    end_all(room.engine)
    assert 0 == len(room.engine.tasks)
    assert ENDED_TASKS_KEPT >= len(room.engine.tasks.ended())
    assert 0 == len(room.holders)
    assert (await room.begin()).live


@pytest.mark.timeout(120)
async def test_case_42_validators_that_do_not_read(room: Room) -> None:
    """A validator that never reads is sent to a new snapshot; others hear of every end, at the moment of it."""
    with room.engine.feed.watch([TICKETS]) as reads, room.engine.feed.watch([TICKETS]) as sleeps:
        for _ in range(5 * FEED_CHANGES_HELD):
            task = await room.begin()
            room.engine.end(task, "revoked", "admin")
            assert [(task.id, False)] == [(state.id, state.live) for state in reads.take() if not state.live]
            assert not reads.lost
        assert sleeps.lost
        assert len(sleeps.take()) <= FEED_CHANGES_HELD
