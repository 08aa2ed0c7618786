"""fair_semaphore.py: so many at once of each owner and in all, and whoever waits has a fair turn."""

import asyncio

import pytest
from harness.looking import idle
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import LimitExceeded
from sojourn.quota.fair_semaphore import FairSemaphore


class Callers:
    """Callers that have places until they are told to go. `order`: who got one, as they did."""

    def __init__(self, places):
        self.places = places
        self.order = []
        self.inside = {}
        self.tasks = []

    async def come(self, owner):
        name = f"{owner}{sum(each.startswith(owner) for each in self.inside) + 1}"
        leave = self.inside[name] = asyncio.Event()

        async def stay():
            async with self.places.one(owner):
                self.order.append(name)
                await leave.wait()

        self.tasks.append(asyncio.ensure_future(stay()))
        await idle()
        return name

    async def leave(self, name):
        self.inside[name].set()
        await idle()

    async def close(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def callers():
    made = Callers(FairSemaphore(3, in_all=4, waiting=5))
    yield made
    await made.close()
    assert len(made.places) == 0


async def test_so_many_at_once(callers):
    """No more calls than that are made at once."""
    for owner in "abcdef":
        await callers.come(owner)
    assert ["a1", "b1", "c1", "d1"] == callers.order


async def test_one_owner_does_not_take_all(callers):
    """Whoever asks for much leaves a place for others, also when all calls are slow."""
    for _ in range(6):
        await callers.come("a")
    await callers.come("b")
    assert ["a1", "a2", "a3", "b1"] == callers.order


async def test_they_take_turns(callers):
    """One that came late with little is not behind all of one that came early with much."""
    for _ in range(3):
        await callers.come("a")
    await callers.come("z")
    for _ in range(4):
        await callers.come("a")
    for _ in range(2):
        await callers.come("b")
    for name in ("a1", "a2", "a3", "z1"):
        await callers.leave(name)
    assert ["a4", "b1", "a5", "b2"] == callers.order[4:]


async def test_so_many_wait(callers):
    """Of one owner so many wait; one more is refused, and another owner's is not."""
    for _ in range(3 + 5):
        await callers.come("a")
    with pytest.raises(LimitExceeded):
        async with callers.places.one("a"):
            pytest.fail("it has a place")
    await callers.come("b")
    assert callers.order[-1] == "b1"


async def test_it_waits_no_longer_than_until(callers):
    """One that has no place in time is told so, and takes none later."""
    for _ in range(3):
        await callers.come("a")
    with pytest.raises(TimeoutError):
        async with callers.places.one("a", until=asyncio.get_running_loop().time() + 0.01):
            pytest.fail("it has a place")
    await callers.leave("a1")
    await callers.come("a")
    assert callers.order[-1] == "a4"


async def test_whoever_goes_away_takes_no_place(callers):
    """One that is cancelled while it waits leaves its turn to the next."""
    for _ in range(5):
        await callers.come("a")
    callers.tasks[3].cancel()
    await idle()
    await callers.leave("a1")
    assert ["a5"] == callers.order[3:]


async def test_whoever_goes_away_gives_no_place_back(callers):
    """One that is cancelled while it waits had no place, so that nobody gets one by that."""
    for _ in range(4):
        await callers.come("a")
    callers.tasks[3].cancel()
    await idle()
    for owner in "abc":
        await callers.come(owner)
    assert ["a1", "a2", "a3", "b1"] == callers.order


async def test_whoever_goes_away_waits_no_more(callers):
    """Those who were cancelled do not count among those who wait."""
    for _ in range(3 + 5):
        await callers.come("a")
    for task in callers.tasks[3:]:
        task.cancel()
    await idle()
    for _ in range(5):
        await callers.come("a")
    assert [False] * 5 == [task.done() for task in callers.tasks[-5:]]


async def test_whoever_goes_away_as_it_is_given_a_place_leaves_it(callers):
    """One that is cancelled in the moment in which it is given a place gives that back."""
    for _ in range(5):
        await callers.come("a")
    callers.inside["a1"].set()
    await asyncio.sleep(0)  # a1 has left, and a4 has a place, and does not know of it yet
    assert [1, 3] == [len(callers.order) - 2, callers.places._taken["a"]]
    callers.tasks[3].cancel()
    await idle()
    assert ["a5"] == callers.order[3:]


async def test_whoever_goes_away_holds_nobody_up(callers):
    """Others of an owner go on when the first who waits was cancelled and does not know of it yet."""
    for _ in range(5):
        await callers.come("a")
    callers.tasks[3].cancel()
    callers.inside["a1"].set()
    await idle()
    assert ["a5"] == callers.order[3:]


async def test_an_error_gives_the_place_back(callers):
    """A place is free again however its work ends."""
    for _ in range(4):
        with pytest.raises(KeyError):
            async with callers.places.one("a"):
                raise KeyError
    assert 0 == len(callers.places)


async def test_it_says_whether_one_had_to_wait():
    """Whoever takes a place knows whether it was free at once, and anyone can ask before."""
    places = FairSemaphore(1)
    assert not places.locked("a")
    assert not await places.acquire("a")
    assert (True, False) == (places.locked("a"), places.locked("b"))
    second = asyncio.ensure_future(places.acquire("a"))
    await idle()
    assert not second.done()
    places.release("a")
    assert await second
    places.release("a")
    assert (False, 0) == (places.locked("a"), len(places))


async def test_whoever_waits_is_not_overtaken():
    """A place that was just given back belongs to who waits for it, and not to who comes in that moment."""
    places = FairSemaphore(1)
    await places.acquire("a")
    waiting = asyncio.ensure_future(places.acquire("a"))
    await idle()
    places.release("a")
    assert places.locked("a")
    later = asyncio.ensure_future(places.acquire("a"))
    assert await waiting
    assert not later.done()
    places.release("a")
    assert await later


async def test_without_a_limit_in_all():
    """Where only each owner has a limit, as many owners as come are let in, and any number waits."""
    places = FairSemaphore(1)
    for owner in range(100):
        assert not await places.acquire(owner)
    waiting = [asyncio.ensure_future(places.acquire(7)) for _ in range(100)]
    await idle()
    places.release(8)
    await idle()
    assert [False] * 100 == [each.done() for each in waiting]
    places.release(7)
    await idle()
    assert [True, *[False] * 99] == [each.done() for each in waiting]
    for each in waiting:
        each.cancel()


async def test_the_refusal():
    """Whoever is refused is told so in the words of what was asked for."""
    places = FairSemaphore(1, waiting=0, refusal="the kitchen is full")
    await places.acquire("a")
    with pytest.raises(LimitExceeded, match="the kitchen is full"):
        await places.acquire("a")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["come", "leave", "go away"])), max_size=40))
async def test_nobody_waits_while_there_is_room(moves):
    """However owners come, leave and go away, no limit is passed, and nobody waits for a place that is free."""
    callers = Callers(FairSemaphore(2, in_all=3))
    there = {}
    try:
        for owner, move in moves:
            mine = [name for name in there if name.startswith(owner)]
            if move == "come":
                name = await callers.come(owner)
                there[name] = callers.tasks[-1]
            elif mine and move == "leave":
                there.pop(mine[0])
                await callers.leave(mine[0])
            elif mine:
                there.pop(mine[-1]).cancel()
                await idle()
            inside = [name[0] for name in callers.order if name in there]
            waiting = {name[0] for name in there if name not in callers.order}
            assert len(inside) <= 3
            assert all(inside.count(each) <= 2 for each in "abc")
            assert len(inside) == 3 or all(inside.count(each) == 2 for each in waiting)
    finally:
        await callers.close()
    assert 0 == len(callers.places)
