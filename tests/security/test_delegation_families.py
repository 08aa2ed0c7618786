"""Families of tasks under attack: what is handed on is never more, and ends with whose it is."""

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.delegations import READ
from fakes.families import FamilyRoom, handed_on, opened
from fakes.task_types import TICKETS, WIKI
from harness.examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from sojourn.errors import LimitExceeded, PolicyDenied, SojournError
from sojourn.limits import DELEGATION_DEPTH
from sojourn.tasks.task import CASCADED
from sojourn.tasktoken.end_reasons import OPERATOR
from sojourn.tasktoken.grants import Authority, Grant

pytestmark = pytest.mark.full


@pytest.fixture
async def room(stack: AsyncExitStack) -> FamilyRoom:
    return await opened(FamilyRoom(FakeClock()), stack)


def held(authority: Authority) -> set[tuple[str, str]]:
    return {(grant.resource, action) for grant in authority.grants for action in grant.actions}


async def test_budgets_are_the_familys(stack: AsyncExitStack) -> None:
    """Handing a task on makes no new budget, neither of the type's nor of a policy that counts calls."""
    once = '@id("all") permit (principal, action, resource) when { principal.reported_calls < 2 };'
    room = await opened(FamilyRoom(FakeClock(), handed_on(once, max_tokens="3")), stack)
    task = await room.begin()
    child, second = await room.hand_on(task, 0), await room.hand_on(task, 1)
    room.engine.report_use(child, TICKETS, "ticket:read")
    room.engine.report_use(second, TICKETS, "ticket:read")
    for each in (task, child, second):
        with pytest.raises(PolicyDenied):
            await room.engine.token(each, TICKETS, ())
    task.count_calls(TICKETS, "ticket:read", -2)
    for each in (task, child, second):
        await room.engine.token(each, TICKETS, ())
    for each in (task, child, second):
        with pytest.raises(LimitExceeded):
            await room.engine.token(each, TICKETS, ())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hand_on", "hand_on", "hand_on", "narrow", "suspend", "resume", "token", "end", "time"]),
        st.integers(0, 30),
        st.integers(0, 9),
        st.sets(st.sampled_from(sorted(held(Authority((*READ.grants, Grant(WIKI, ("page:read",)))))))),
        st.integers(0, 400),
    ),
    max_size=25,
)


@examples(60, *HealthCheck)
@given(steps=STEPS)
def test_no_child_has_more_than_its_parent(steps: list[Any]) -> None:
    """Whatever is done to a family, no child has an action, a second or a state that its parent has not."""
    asyncio.run(_live_through(steps))


async def _live_through(steps: list[Any]) -> None:
    async with AsyncExitStack() as stack:
        room = await opened(FamilyRoom(FakeClock()), stack)
        tasks = [await room.begin(max_seconds=900)]
        for step, which, worker, pairs, seconds in steps:
            task = tasks[which % len(tasks)]
            part = Authority.of(Grant(resource, (action,)) for resource, action in sorted(pairs))
            with suppress(SojournError):
                match step:
                    case "hand_on":
                        tasks.append(await room.hand_on(task, worker, part if pairs else None, seconds))
                    case "narrow":
                        await room.changing.narrow(task, part, "holder")
                    case "suspend":
                        await room.changing.suspend(task, OPERATOR, "test")
                    case "resume":
                        await room.changing.resume(task, OPERATOR)
                    case "token":
                        token = await room.engine.token(task, "", ())
                        assert token.expires_at <= min(
                            each.expires_at for each in (task, *room.engine.family.line(task))
                        )
                    case "end":
                        if task.live and which:
                            room.engine.end(task, "completed", "success")
                    case "time":
                        room.clock.advance(seconds / 10)
                        room.alarms.ring_due()
            _check_family(room, tasks)


def _check_family(room: FamilyRoom, tasks: list[Any]) -> None:
    for task in tasks:
        parent = room.engine.family.parent(task)
        if parent is None or not task.live:
            continue
        assert parent.live
        assert task.state != "active" or parent.state == "active"
        assert held(task.authority) <= held(parent.authority)
        assert task.deadline <= parent.deadline
        assert task.expires_at <= parent.expires_at
        assert (*parent.ancestors, parent.spiffe_id) == task.ancestors
        assert len({*task.ancestors, task.spiffe_id}) == task.depth + 1


async def test_a_large_family_ends_at_once(room: FamilyRoom) -> None:
    """Eight hundred tasks, a hundred at each of eight depths, are over when their root is, within a moment."""
    root = await room.begin()
    line = root
    for depth in range(DELEGATION_DEPTH):
        wide = line
        line = await room.hand_on(wide, depth)
        for _ in range(99):
            await room.hand_on(wide, depth)
    assert 1 + 100 * DELEGATION_DEPTH == len(room.engine.tasks)
    began = time.perf_counter()
    room.engine.end(root, "completed", "success")
    taken = time.perf_counter() - began
    assert 0 == len(room.engine.tasks)
    assert taken < 1.0  # some 30 ms on a quiet machine
    await room.engine.journal.drain()
    assert {"completed", CASCADED} == {state for state, _ in room.store.rows.values()}
