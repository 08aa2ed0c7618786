"""single_flight.py: the same work for all who ask for it meanwhile, whoever of them goes away."""

import asyncio
import gc

import pytest
from sojourn.runtime.single_flight import SingleFlight


class Work:
    """Begins work that ends when the test says so, and counts how often it was begun."""

    def __init__(self):
        self.begun = 0
        self.outcome = asyncio.get_running_loop().create_future()
        self.cancelled = False

    async def __call__(self):
        self.begun += 1
        try:
            return await asyncio.shield(self.outcome)
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@pytest.fixture
async def work():
    return Work()


@pytest.fixture
def flights():
    return SingleFlight()


async def asking(flights, work, number=1, key="k"):
    """So many who wait for the same."""
    waiting = [asyncio.ensure_future(flights.run(key, work)) for _ in range(number)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return waiting


async def warnings_of(todo):
    """What asyncio warns of while something is done, and once nothing refers to its futures any more."""
    warned, loop = [], asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: warned.append(context["message"]))
    await todo()
    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    return warned


async def test_joins(flights, work):
    """Whoever asks while the work is under way gets its result, and it is begun once."""
    waiting = await asking(flights, work, 3)
    assert (1, 1, True, False) == (work.begun, len(flights), "k" in flights, "other" in flights)
    work.outcome.set_result("done")
    assert ["done"] * 3 == await asyncio.gather(*waiting)


async def test_each_key_has_its_own(flights, work):
    """Work for another key is begun beside it."""
    waiting = [*await asking(flights, work), *await asking(flights, work, key="other")]
    assert (2, 2) == (work.begun, len(flights))
    work.outcome.set_result("done")
    await asyncio.gather(*waiting)


async def test_an_error_is_raised_to_all(flights, work):
    """What the work raises is raised to each who waits."""
    waiting = await asking(flights, work, 3)
    work.outcome.set_exception(OSError("no"))
    failed = await asyncio.gather(*waiting, return_exceptions=True)
    assert [OSError] * 3 == [type(each) for each in failed]


async def test_one_goes_away(flights, work):
    """Who goes away takes nothing from those who stay."""
    first, second = await asking(flights, work, 2)
    first.cancel()
    await asyncio.wait([first])
    assert (True, False) == (first.cancelled(), work.cancelled)
    work.outcome.set_result("done")
    assert "done" == await second


async def test_all_go_away(flights, work):
    """When all go away the work goes on, and who asks again waits for the same."""
    waiting = await asking(flights, work, 2)
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
    assert (False, 1) == (work.cancelled, len(flights))
    [again] = await asking(flights, work)
    work.outcome.set_result("done")
    assert ("done", 1) == (await again, work.begun)


async def test_an_error_that_nobody_waits_for(flights, work):
    """What the work raises after all have gone is nobody's: asyncio warns of nothing."""

    async def fail():
        [waiting] = await asking(flights, work)
        waiting.cancel()
        await asyncio.wait([waiting])
        work.outcome.set_exception(OSError("no"))
        work.outcome.exception()
        while len(flights):
            await asyncio.sleep(0)

    assert [] == await warnings_of(fail)


async def test_begun_behind(flights, work):
    """Work may be begun without waiting: that it fails is nobody's, and who asks meanwhile joins."""

    async def fail():
        flights.begin("k", work)
        [waiting] = await asking(flights, work)
        work.outcome.set_exception(OSError("no"))
        with pytest.raises(OSError, match="no"):
            await waiting
        assert 1 == work.begun

    assert [] == await warnings_of(fail)


@pytest.mark.parametrize("outcome", ["result", "error"])
async def test_a_new_one_after_the_end(flights, work, outcome):
    """Once it has ended, well or not, nothing of it is kept: who asks then has it begun anew."""
    waiting = await asking(flights, work)
    if outcome == "result":
        work.outcome.set_result("old")
    else:
        work.outcome.set_exception(OSError("old"))
    await asyncio.wait(waiting)
    waiting[0].exception()
    assert (0, False) == (len(flights), "k" in flights)
    work.outcome = asyncio.get_running_loop().create_future()
    [again] = await asking(flights, work)
    assert (2, False) == (work.begun, again.done())
    work.outcome.set_result("new")
    assert "new" == await again


async def test_a_future_of_somebody_else(flights):
    """The work may be a future that somebody else sets, such as a thread's."""
    future = asyncio.get_running_loop().create_future()
    waiting = [asyncio.ensure_future(flights.run("k", lambda: future)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    assert not future.cancelled()
    future.set_result("done")
    assert ("done", 0) == (await waiting[1], len(flights))


async def test_work_that_cannot_begin(flights, work):
    """What cannot even begin says so to who asks, and is not under way."""

    def broken():
        raise RuntimeError("no threads")

    with pytest.raises(RuntimeError, match="no threads"):
        await flights.run("k", broken)
    assert 0 == len(flights)


async def test_closed(flights, work):
    """Closing cancels all that is under way, and returns when it has ended; who waits hears of it."""
    waiting = [*await asking(flights, work, 2), *await asking(flights, work, key="other")]
    await flights.close()
    assert (True, 0) == (work.cancelled, len(flights))
    await asyncio.wait(waiting)
    assert [True] * 3 == [each.cancelled() for each in waiting]
