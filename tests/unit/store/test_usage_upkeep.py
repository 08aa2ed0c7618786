"""store/usage_upkeep.py: since when each type is as it is, and sums that are too old."""

from datetime import timedelta

import pytest
from fakes.clock import FakeClock
from fakes.task_types import task_type
from fakes.usage_records import ended, use
from sojourn.oversight.sums import DAY_MS, Window
from sojourn.store.usage import UsageTable
from sojourn.store.usage_upkeep import UsageUpkeep

DAY_SECONDS = 86_400


class Place:
    def __init__(self, database, journal):
        self.database, self.journal = database, journal
        self.clock = FakeClock()
        self.usage = UsageTable(database, journal)
        self.types = {}
        self.upkeep = self.started()

    def started(self):
        keep = timedelta(days=30)
        return UsageUpkeep(self.database, self.usage, lambda: self.types, keep, self.clock)

    @property
    def now(self):
        return int(self.clock.now().timestamp() * 1_000)

    async def noted(self, **types):
        self.types = types
        await self.upkeep.note_types()
        return await self.upkeep.in_force()


@pytest.fixture
def place(database, journal):
    return Place(database, journal)


async def test_since_when(place):
    """A type is as it is from when it was first seen so; another one does not change that, nor does a start."""
    first = place.now
    assert {"a": first} == await place.noted(a=task_type("a"))
    place.clock.advance(10)
    assert {"a": first, "b": place.now} == await place.noted(a=task_type("a"), b=task_type("b"))
    place.upkeep = place.started()
    place.clock.advance(10)
    assert {"a": first} == await place.noted(a=task_type("a"))


async def test_one_that_changes(place):
    """A type that is another now is so from now on, also if it was that before."""
    await place.noted(a=task_type("a"))
    for changes in ({"max_duration": '"1m"'}, {}):
        place.clock.advance(10)
        assert {"a": place.now} == await place.noted(a=task_type("a", **changes))


async def test_one_that_comes_back(place):
    """A type that was away is there since it came back."""
    await place.noted(a=task_type("a"))
    assert {} == await place.noted()
    place.clock.advance(10)
    assert {"a": place.now} == await place.noted(a=task_type("a"))


async def test_days_that_are_too_old(place):
    """Sums are kept for as long as was said, and the shorter time is in force as soon as it is said."""
    begun = place.now
    await place.usage.begin(begun)
    for day in range(40):
        await place.journal.append([ended(use(), at_ms=begun + day * DAY_MS)])
    await place.usage.flush()
    place.clock.advance(39 * DAY_SECONDS)
    assert 2 * 9 == await place.upkeep.prune()
    assert 0 == await place.upkeep.prune()
    found = await place.usage.read(Window(0, 10**6))
    assert [31] == [each.granted for each in found.actions.values()]
    place.upkeep.keep = timedelta(days=35)
    assert 0 == await place.upkeep.prune()
    place.upkeep.keep = timedelta(days=10)
    assert 2 * 20 == await place.upkeep.prune()
    assert begun // DAY_MS + 29 == await place.usage.since_ms() // DAY_MS
