"""oversight/histogram.py: sizes in few buckets, of which two make a third."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.oversight.histogram import Histogram

VALUES = st.lists(st.integers(0, 10**12), max_size=50)


def of(values):
    made = Histogram()
    for each in values:
        made.add(each)
    return made


@given(VALUES, VALUES)
def test_two_make_a_third(one, other):
    """What two have together is what one would have of all their values, whichever of them is first."""
    first, second = of(one), of(other)
    first.merge(of(other))
    second.merge(of(one))
    assert of(one + other) == first == second


@given(VALUES.filter(bool), st.floats(0.01, 1))
def test_a_quantile_is_never_too_small(values, share):
    """At least that share of the values is no greater than the quantile, and it is a fifth too great at the most."""
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    found = of(values).quantile(share)
    assert exact <= found <= max(exact, exact * 1.2)
    assert max(values) == of(values).quantile(1)


@pytest.mark.parametrize("value", range(7))
def test_small_ones_are_exact(value):
    """Counts as budgets and depths have them, up to 6, are told as they are."""
    assert value == of([value, value, 10**6]).quantile(0.5)


@given(VALUES)
def test_it_comes_back(values):
    """What is written is what is read."""
    assert of(values) == Histogram.read(of(values).document())


def test_nothing():
    """Of no values all is 0."""
    assert (0, 0) == (Histogram().greatest, Histogram().quantile(0.99))


@given(VALUES, st.integers(0, 99), st.integers(1, 99))
def test_one_that_turns_out_greater(values, before, more):
    """A value that grew counts as what it has become, and no more as what it was."""
    moved = of([*values, before])
    moved.move(before, before + more)
    assert of([*values, before + more]) == moved


def test_over_midnight():
    """A value of yesterday that grew today leaves both days right together, though today alone has less than nothing."""
    yesterday, today = of([3, 3]), Histogram()
    today.move(3, 9)
    assert 9 == today.quantile(0.99)
    yesterday.merge(today)
    assert of([3, 9]) == yesterday


def test_the_greatest_of_many():
    """Where nobody knows which one grew, the greatest is told as it is."""
    found = of([1, 2])
    found.reach(7)
    assert (7, 2) == (found.greatest, found.quantile(0.99))
