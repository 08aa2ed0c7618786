"""Calls to one provider: so many at once, and shared fairly."""

import asyncio

import pytest
from sojourn.credentials.fair_queue import Places
from sojourn.errors import LimitExceeded

DEADLINE_SECONDS = 20


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
        await settle()
        return name

    async def leave(self, name):
        self.inside[name].set()
        await settle()

    async def close(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def callers():
    made = Callers(Places(at_once=4, per_owner=3, waiting=5))
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
    await settle()
    await callers.leave("a1")
    assert ["a5"] == callers.order[3:]


async def test_whoever_goes_away_as_it_is_given_a_place_leaves_it(callers):
    """One that is cancelled in the moment in which it is given a place gives that back."""
    for _ in range(5):
        await callers.come("a")
    callers.inside["a1"].set()
    await asyncio.sleep(0)  # a1 has left, and a4 has a place, and does not know of it yet
    assert [1, 3] == [len(callers.order) - 2, callers.places._taken["a"]]
    callers.tasks[3].cancel()
    await settle()
    assert ["a5"] == callers.order[3:]
