"""oversight/seen_values.py: which values there were, as far as they are few and short."""

from hypothesis import given
from hypothesis import strategies as st
from sojourn.oversight.seen_values import VALUES_SHOWN, SeenValues

VALUES = st.lists(
    st.one_of(st.booleans(), st.integers(-30, 30), st.text("ab", max_size=4), st.just("x" * 101)), max_size=40
)


def of(values):
    made = SeenValues()
    for each in values:
        made.add(each)
    return made


@given(VALUES, VALUES)
def test_two_make_a_third(one, other):
    """What two have together is what one would have seen of all values, whichever of them is first."""
    first, second = of(one), of(other)
    first.merge(of(other))
    second.merge(of(one))
    assert of(one + other) == first == second


@given(VALUES)
def test_it_comes_back(values):
    """What is written is what is read."""
    assert of(values) == SeenValues.read(of(values).document())


def test_few():
    """Few short values are told, each once, and of numbers the ends."""
    found = of([3, 1, 3])
    assert ([1, 3], 1, 3, None, False) == (found.shown, found.least, found.greatest, found.longest, found.many)


def test_many():
    """Of more than twenty values none is kept; their ends are."""
    found = of(range(VALUES_SHOWN + 1))
    assert (True, [], 0, VALUES_SHOWN) == (found.many, found.shown, found.least, found.greatest)


def test_a_long_one():
    """A long text is not kept: how long it was is."""
    found = of(["a", "x" * 101])
    assert (True, [], 101) == (found.many, found.shown, found.longest)


def test_true_is_not_one():
    """A truth value and a number are two values."""
    assert [True, 1] == of([True, 1]).shown


def test_constant():
    """One value each time is no more than one value, however often it came."""
    assert of([True, True]).constant
    assert not of([True, False]).constant
    assert not of([]).constant
    assert not of(["x" * 200]).constant
