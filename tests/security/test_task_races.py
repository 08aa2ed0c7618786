"""Races that an attacker would try to win: a token against the end of its task, a change against a token."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from fakes.clock import FakeClock
from fakes.task_room import Room, end_all
from fakes.task_types import TICKETS, WIKI, task_type
from sojourn.errors import SojournError, TaskOver
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasktoken.end_reasons import OPERATOR
from sojourn.tasktoken.grants import Authority, Grant

pytestmark = pytest.mark.full

TIMES = 10_000
READ = Authority((Grant(TICKETS, ("ticket:read",)),))


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with Room(FakeClock(), {"triage": task_type()}).running() as room:
        yield room
        end_all(room.engine)
        await room.engine.journal.drain()


async def after(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.mark.timeout(240)
async def test_revoke_racing_issue(room: Room) -> None:
    """10,000 times a task is revoked while tokens are issued: none that came out is accepted after the flip."""
    chance, refused, given = random.Random(7), 0, 0
    for _ in range(TIMES):
        task = await room.begin()
        asked = [asyncio.ensure_future(room.engine.token(task, TICKETS, ())) for _ in range(2)]
        await after(chance.randrange(8))
        room.engine.end(task, "revoked", "race")
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, TaskOver)
                refused += 1
                continue
            given += 1
            with pytest.raises(TaskOver):
                room.engine.check_token(outcome)
    assert refused > TIMES / 10
    assert given > TIMES / 10


@pytest.mark.timeout(120)
async def test_changes_racing_issue(room: Room) -> None:
    """Tokens that come out while their task is suspended, resumed and narrowed are good for its newest version only."""
    chance, changing = random.Random(11), TaskChanges(room.engine)
    for _ in range(1_000):
        task = await room.begin()
        asked = [asyncio.ensure_future(room.engine.token(task, TICKETS, ())) for _ in range(3)]
        await after(chance.randrange(6))
        await changing.suspend(task, OPERATOR, "race")
        resuming = asyncio.ensure_future(changing.resume(task, OPERATOR))
        asked += [asyncio.ensure_future(room.engine.token(task, TICKETS, ())) for _ in range(2)]
        await after(chance.randrange(6))
        await changing.narrow(task, READ, "race")
        await asyncio.gather(resuming, return_exceptions=True)
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, SojournError)
            elif outcome.task_version != task.version or task.state != "active":
                with pytest.raises(TaskOver):
                    room.engine.check_token(outcome)
            else:
                assert ("ticket:read",) == outcome.actions
        assert not set(task.authority.resources) & {WIKI}
        room.engine.end(task, "revoked", "done")
