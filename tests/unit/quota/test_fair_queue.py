"""fair_queue.py: items are taken owner by owner in turn."""

from hypothesis import given
from hypothesis import strategies as st
from sojourn.quota.fair_queue import FairQueue


def filled(*items):
    """A queue of items whose first letters are their owners."""
    queue = FairQueue()
    for item in items:
        queue.put(item[0], item)
    return queue


def drained(queue):
    found = []
    while queue:
        found.append(queue.take())
    return found


def test_owner_by_owner():
    """One that came late with little is not behind all of one that came early with much."""
    assert ["a1", "b1", "c1", "a2", "b2", "a3"] == drained(filled("a1", "a2", "a3", "b1", "b2", "c1"))


def test_whoever_had_a_turn_is_last():
    """An owner who had a turn is behind one who came after it."""
    queue = filled("a1", "a2")
    assert "a1" == queue.take()
    queue.put("b", "b1")
    queue.put("a", "a3")
    assert ["a2", "b1", "a3"] == drained(queue)


def test_an_item_is_there_once():
    """What its owner has put already keeps its place, and two owners may put the same."""
    queue = filled("a1", "a2", "a1")
    queue.put("b", "a1")
    assert (3, 2, 1) == (len(queue), queue.length_of("a"), queue.length_of("b"))
    assert ["a1", "a1", "a2"] == drained(queue)


def test_nothing_is_there():
    """An empty queue gives nothing, and keeps no owner."""
    queue = filled("a1")
    assert ("a1", None, None) == (queue.take(), queue.take(), queue.take_of("a"))
    assert (0, False, ()) == (len(queue), bool(queue), queue.owners())


def test_of_one_owner():
    """An item can be taken of an owner who is not next, who then waits behind the others."""
    queue = filled("a1", "b1", "b2", "c1")
    assert ("b1", None) == (queue.take_of("b"), queue.take_of("z"))
    assert ("a", "c", "b") == queue.owners()
    assert ["a1", "c1", "b2"] == drained(queue)


def test_discarded():
    """What is discarded has no turn, and an owner of nothing else has none either; others keep theirs."""
    queue = filled("a1", "a2", "a3", "b1", "c1")
    queue.discard("a", "a2")
    queue.discard("b", "b1")
    queue.discard("b", "b1")
    queue.discard("c", "c9")
    assert (("a", "c"), 3, 2) == (queue.owners(), len(queue), queue.length_of("a"))
    assert ["a1", "c1", "a3"] == drained(queue)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), unique=True, max_size=30))
def test_all_in_rounds(items):
    """Everything comes out once, of each owner in the order it was put in, and nobody has two turns while one waits."""
    queue = FairQueue()
    for item in items:
        queue.put(item[0], item)
    found = drained(queue)
    for owner in "abc":
        assert [each for each in items if each[0] == owner] == [each for each in found if each[0] == owner]
    rounds = [sum(each[0] == item[0] for each in found[:number]) for number, item in enumerate(found)]
    assert sorted(rounds) == rounds
