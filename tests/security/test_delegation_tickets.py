"""Delegation tickets under attack: facts F.8 case 10, and the races that an attacker would try to win."""

import asyncio
import random
import re
import time
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.delegations import PAGES, READ
from fakes.families import WORKERS, FamilyRoom, handed_on, opened
from fakes.registrations import entry
from fakes.task_room import TRIAGE_ENTRY
from fakes.task_types import TICKETS
from sojourn.errors import NotFound, PolicyDenied, StoreFailed, TaskOver
from sojourn.tasks.task import CASCADED
from sojourn.tasktoken.end_reasons import OPERATOR

pytestmark = pytest.mark.full

NO_TICKET = "there is no such delegation ticket for the caller: each is good once, not for long, and for one workload"
RACES = 1_000


@pytest.fixture
async def room(stack: AsyncExitStack) -> FamilyRoom:
    return await opened(FamilyRoom(FakeClock()), stack)


async def after(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


# --- case 10: tickets stolen, used twice, used after the end ---------------------------------------------------------


async def test_case_10_a_stolen_ticket(room: FamilyRoom) -> None:
    """A ticket in other hands is worth nothing, says nothing, and is still good for whom it is for."""
    task = await room.begin()
    ticket = await room.ticket(task, 0)
    for thief in ((entry(WORKERS[1]),), (TRIAGE_ENTRY,), ()):
        with pytest.raises(NotFound, match=f"^{NO_TICKET}$"):
            await room.accept(ticket, 0, entries=thief)
    assert "active" == (await room.accept(ticket, 0)).state


async def test_case_10_all_bad_tickets_look_alike(room: FamilyRoom) -> None:
    """Unknown, used, expired, foreign and void tickets cannot be told apart."""
    task, other = await room.begin(), await room.begin()
    used, foreign, expired, void = [await room.ticket(task, number) for number in range(3)] + [
        await room.ticket(other, 0)
    ]
    await room.accept(used, 0)
    room.engine.end(other, "revoked", "test")
    tries = [(used, 0), (foreign, 0), (void, 0), ("dlg_unknown", 0), ("", 0), ("\udcff\0" * 9, 0)]
    found = []
    for ticket, worker in tries:
        with pytest.raises(NotFound) as error:
            await room.accept(ticket, worker)
        found.append((error.value.public, error.value.detail))
    room.clock.advance(61)
    with pytest.raises(NotFound) as error:
        await room.accept(expired, 2)
    assert {(NO_TICKET, "")} == {*found, (error.value.public, error.value.detail)}


@pytest.mark.timeout(120)
async def test_case_10_unknown_and_foreign_take_as_long(room: FamilyRoom) -> None:
    """The times of an unknown ticket and of one that is another's lie in one range."""
    ticket = await room.ticket(await room.begin(), 1)

    async def seconds(tried: str) -> float:
        began = time.perf_counter()
        with suppress(NotFound):
            await room.accept(tried, 0)
        return time.perf_counter() - began

    times: dict[str, list[float]] = {ticket: [], "dlg_" + "A" * 43: []}
    for _ in range(300):
        for tried, taken in times.items():
            taken.append(await seconds(tried))
    foreign, unknown = (sorted(taken)[len(taken) // 2] for taken in times.values())
    assert foreign < 2 * unknown + 0.0005
    assert unknown < 2 * foreign + 0.0005


async def test_case_10_fifty_with_one_ticket(room: FamilyRoom) -> None:
    """Of fifty who come with one ticket at once one begins a task; the others learn nothing."""
    task = await room.begin()
    for _ in range(20):
        ticket = await room.ticket(task, 0)
        outcomes = await asyncio.gather(*(room.accept(ticket, 0) for _ in range(50)), return_exceptions=True)
        winners = [each for each in outcomes if not isinstance(each, BaseException)]
        assert 1 == len(winners)
        assert [NO_TICKET] * 49 == [each.public for each in outcomes if isinstance(each, NotFound)]
        assert winners == room.engine.family.children(task)
        room.engine.end(winners[0], "completed", "success")


async def test_case_10_after_the_end_of_the_parent(room: FamilyRoom) -> None:
    """When a task is over its tickets are void; when it is suspended they are void too, and stay so."""
    over, paused = await room.begin(), await room.begin()
    first, second = await room.ticket(over, 0), await room.ticket(paused, 0)
    room.engine.end(over, "completed", "success")
    await room.changing.suspend(paused, OPERATOR, "test")
    await room.changing.resume(paused, OPERATOR)
    for ticket in (first, second):
        with pytest.raises(NotFound):
            await room.accept(ticket, 0)
    assert 0 == len(room.engine.tickets)
    assert 0 == paused.handed_on


async def test_case_10_of_a_type_that_is_for_breaking_glass_by_now(room: FamilyRoom) -> None:
    """A ticket from before its type became one for emergencies is good for nothing, and there are no more."""
    task = await room.begin()
    ticket = await room.ticket(task, 0)
    task.type = handed_on(break_glass="true", max_duration='"10m"', approval='{within = "60s"}')
    with pytest.raises(PolicyDenied, match="break-glass"):
        await room.accept(ticket, 0)
    with pytest.raises(PolicyDenied, match="break-glass"):
        await room.ticket(task, 0)
    assert [task] == room.engine.tasks.all()


async def test_case_10_a_narrowed_parent_cuts_its_tickets(room: FamilyRoom) -> None:
    """A ticket gives what its parent still has at the time; nothing left is no ticket."""
    task = await room.begin()
    ticket, gone = await room.ticket(task, 0), await room.ticket(task, 1, PAGES)
    await room.changing.narrow(task, READ, "holder")
    assert READ == (await room.accept(ticket, 0)).authority
    with pytest.raises((NotFound, PolicyDenied)):
        await room.accept(gone, 1)
    assert 1 == len(room.engine.family.children(task))


async def test_case_10_tickets_are_random_and_kept_as_digests(room: FamilyRoom) -> None:
    """No ticket stands in memory, a record or a repr; each has 256 random bits."""
    task = await room.begin()
    issued = [await room.delegating.delegate(task, entry(WORKERS[0]).spiffe_id, None) for _ in range(20)]
    texts = {each.ticket for each in issued}
    assert 20 == len(texts)
    assert all(re.fullmatch(r"dlg_[A-Za-z0-9_-]{43}", each) for each in texts)
    seen = [repr(each) for each in issued] + [str(vars(room.engine.tickets))]
    seen += [each.fields for each in room.store.events] + [each.decode() for each in room.store.documents.values()]
    assert not [text for text in texts if any(text in each for each in seen)]


async def test_case_10_no_record_no_ticket(room: FamilyRoom) -> None:
    """A ticket that cannot be recorded is none, and a task that cannot be written has not begun."""
    task = await room.begin()
    ticket = await room.ticket(task, 0)
    room.store.failure = StoreFailed("the disk is gone")
    with pytest.raises(StoreFailed):
        await room.ticket(task, 1)
    with pytest.raises(StoreFailed):
        await room.accept(ticket, 0)
    room.store.failure = None
    assert [] == room.engine.family.children(task)
    assert (0, 0) == (task.handed_on, len(room.engine.tickets))
    with pytest.raises(NotFound):  # it was used up all the same
        await room.accept(ticket, 0)


# --- case 10: the race against the parent's end ----------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["first", "second"])
async def test_case_10_the_parent_ends_while_the_child_is_written(room: FamilyRoom, ends: str) -> None:
    """Whichever is written first, a parent's end takes along the child that is just beginning."""
    task = await room.begin()
    ticket = await room.ticket(task, 0)
    room.store.gate = asyncio.Event()
    room.store.writing.clear()
    if ends == "first":
        room.engine.end(task, "revoked", "race")
        await room.store.writing.wait()
        accepting = asyncio.ensure_future(room.accept(ticket, 0))
        await after(3)
        expected: Any = NotFound
    else:
        accepting = asyncio.ensure_future(room.accept(ticket, 0))
        await room.store.writing.wait()
        room.engine.end(task, "revoked", "race")
        expected = TaskOver
    room.store.gate.set()
    room.store.gate = None
    with pytest.raises(expected):
        await accepting
    await room.engine.journal.drain()
    assert [] == room.engine.tasks.all()
    assert {"revoked"} | ({CASCADED} if ends == "second" else set()) == {state for state, _ in room.store.rows.values()}


@pytest.mark.timeout(120)
async def test_case_10_a_thousand_races(room: FamilyRoom) -> None:
    """Whenever the parent ends, no child of it lives on, and no token of a child is good after that."""
    chance, begun, refused, tokens_seen = random.Random(5), 0, 0, 0
    for _ in range(RACES):
        task = await room.begin()
        ticket = await room.ticket(task, 0)

        async def work(ticket: str = ticket) -> tuple[Any, Any]:
            child = await room.accept(ticket, 0)
            return child, await room.engine.token(child, TICKETS, ())

        working = asyncio.ensure_future(work())
        await after(chance.randrange(14))
        room.engine.end(task, "revoked", "race")
        assert [] == room.engine.tasks.all()
        [outcome] = await asyncio.gather(working, return_exceptions=True)
        assert [] == room.engine.tasks.all()
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, NotFound | TaskOver)
            refused += 1
            continue
        child, token = outcome
        begun += 1
        tokens_seen += 1
        assert (CASCADED, "parent_ended") == (child.state, child.reason)
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
    assert refused > RACES / 20
    assert begun > RACES / 20


async def test_case_10_the_parent_is_suspended_while_the_child_is_written(room: FamilyRoom) -> None:
    """A child whose parent is suspended before it is on disk has not begun: nobody is left with a task unknown."""
    task = await room.begin()
    ticket = await room.ticket(task, 0)
    room.store.gate = asyncio.Event()
    room.store.writing.clear()
    accepting = asyncio.ensure_future(room.accept(ticket, 0))
    await room.store.writing.wait()
    suspending = asyncio.ensure_future(room.changing.suspend(task, OPERATOR, "race"))
    await after(2)
    room.store.gate.set()
    room.store.gate = None
    with pytest.raises(TaskOver):
        await accepting
    await suspending
    assert [task] == room.engine.tasks.all()
