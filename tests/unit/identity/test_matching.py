"""matching.py: an entry matches when all of its selectors are proved."""

from dataclasses import replace

from fakes.registrations import entry, selectors
from hypothesis import given
from hypothesis import strategies as st
from sojourn.attestation.selectors import Selector
from sojourn.identity.matching import EntryIndex, nearest, unique_hints

few = st.sets(st.integers(0, 5).map(lambda number: Selector("t", str(number))), max_size=5).map(frozenset)
entries = st.lists(
    st.builds(
        lambda number, chosen, age: entry(f"/n{number}", selectors=chosen, created_at=age),
        st.integers(0, 9),
        few.filter(bool),
        st.integers(0, 2),
    ),
    max_size=12,
)


@given(entries, few, st.lists(st.integers(0, 9), max_size=4))
def test_index_equals_looking_at_all(added, held, removed):
    """The index finds exactly the entries whose selectors are all held, in the stated order, after any history."""
    index, left = EntryIndex(), {}
    for each in added:
        index.add(each)
        left[each.id] = each
    for number in removed:
        index.remove(f"entry-n{number}")
        left.pop(f"entry-n{number}", None)
    expected = sorted((each for each in left.values() if each.selectors <= held), key=lambda each: each.order)
    assert tuple(expected) == index.match(held)


def test_names_are_compared_byte_for_byte():
    """A selector that differs in case or by a space is another."""
    index = EntryIndex()
    index.add(entry("/web", "unix:user:web"))
    for other in ("unix:user:Web", "unix:user:web ", "UNIX:user:web", "unix:user:w\u0435b"):
        assert () == index.match(selectors(other))


def test_removing_leaves_nothing():
    """An index from which everything was removed is empty."""
    index = EntryIndex()
    index.add(entry("/a"))
    index.add(replace(entry("/a"), selectors=selectors("unix:uid:2")))
    index.remove("entry-a")
    index.remove("entry-a")
    assert ({}, {}) == (index._filed, index._selector_of)


def test_nearest():
    """The nearest misses come first, and no more than asked for; what matches is no miss."""
    held = selectors("unix:uid:1", "unix:gid:1")
    hit, one, two = entry("/hit", "unix:uid:1"), entry("/one", "unix:uid:1", "x:a"), entry("/two", "x:a", "x:b")
    assert [one, two] == nearest([two, hit, one], held, (), 9)
    assert [one] == nearest([two, hit, one], held, (), 1)


class TestUniqueHints:
    def test_the_oldest_keeps_it(self):
        """Of entries that share a hint the oldest is kept, then the smallest ID; order stays."""
        young, old = entry("/a", hint="h", created_at=2), entry("/b", hint="h", created_at=1)
        twin, plain = entry("/c", hint="h", created_at=1), entry("/d")
        assert (old, plain) == unique_hints([young, twin, old, plain])

    def test_priority_decides_first(self):
        """An entry with a higher priority keeps the hint, however young it is."""
        chosen, old = entry("/a", hint="h", created_at=9, priority=1), entry("/b", hint="h", created_at=1)
        assert (chosen,) == unique_hints([old, chosen])

    @given(entries, st.lists(st.sampled_from(["", "a", "b"]), min_size=12, max_size=12))
    def test_never_two(self, found, hints):
        """No hint is left twice, and nothing without hint is dropped."""
        named = [replace(each, hint=hint) for each, hint in zip(found, hints, strict=False)]
        kept = unique_hints(named)
        given_hints = [each.hint for each in kept if each.hint]
        assert sorted(set(given_hints)) == sorted(given_hints)
        assert [each for each in named if not each.hint] == [each for each in kept if not each.hint]
        assert {each.hint for each in named} == {each.hint for each in kept}


def test_nearest_of_equals():
    """Of entries that lack as much, the one that lacks what could not be proved comes first."""
    held = selectors("unix:uid:1", "unix:gid:1")
    other = entry("/other", "unix:uid:2", "unix:gid:1")
    unproved = entry("/unproved", "unix:uid:1", "unix:path:/bin/web")
    assert [unproved, other] == nearest([other, unproved], held, ["unix:path"], 9)
