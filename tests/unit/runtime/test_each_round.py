"""each_round.py: what is found once for all that is done in one round of the event loop."""

import asyncio
import itertools

import pytest
from sojourn.runtime.each_round import EachRound, Found


async def test_one_for_a_round():
    """All that runs in one round of the loop has the same value, and the next round another."""
    numbers = itertools.count()
    each = EachRound(lambda: next(numbers))
    assert [0, 0] == [each.get(), each.get()]
    await asyncio.sleep(0)
    assert [1, 1] == [each.get(), each.get()]


def test_no_loop():
    """Where no loop runs nothing tells when a round is over, so there is none."""
    numbers = itertools.count()
    each = EachRound(lambda: next(numbers))
    with pytest.raises(RuntimeError):
        each.get()

    async def rounds():
        found = [each.get()]
        await asyncio.sleep(0)
        return [*found, each.get()]

    assert [0, 1] == asyncio.run(rounds())


def test_for_a_moment():
    """What was found is looked for anew once its time is over, in however long a round; another key has its own."""
    now, numbers = [5.0], itertools.count()
    found = Found(0.5, lambda: now[0])
    assert [0, 0, 1] == [found.of(each, lambda: next(numbers)) for each in ("a", "a", "b")]
    now[0] += 0.5
    assert 0 == found.of("a", lambda: next(numbers))
    now[0] += 0.1
    assert 2 == found.of("a", lambda: next(numbers))


def test_failures_are_not_kept():
    """What could not be found is looked for again."""
    found = Found(60.0, lambda: 0.0)
    with pytest.raises(ZeroDivisionError):
        found.of("a", lambda: 1 / 0)
    assert 7 == found.of("a", lambda: 7)


def test_whether_it_is_known():
    """What is known is told without a look, until its time is over."""
    now = [5.0]
    found = Found(0.5, lambda: now[0])
    assert found.known("a") is None
    found.of("a", lambda: 7)
    now[0] += 0.5
    assert (7, None) == (found.known("a"), found.known("b"))
    now[0] += 0.1
    assert found.known("a") is None
