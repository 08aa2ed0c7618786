"""matcher.py: an entry matches when all of its selectors are proved."""

from dataclasses import replace

import pytest
from fakes.registrations import entry, selectors
from hypothesis import given
from hypothesis import strategies as st
from sojourn.attestation.selectors import Selector
from sojourn.identity.entries import Entry, registration
from sojourn.identity.matcher import EntryIndex, might_match, nearest, that_matter, unique_hints
from sojourn.identity.templates import parse_id
from sojourn.limits import BLIND_INDEXES_KEPT

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


def test_kinds_that_nobody_can_tell():
    """Of entries that ask for a kind of selectors that could not be told, those that ask for nothing else may match."""
    index = EntryIndex()
    for name, asked in {
        "of-kind": ("unix:uid:1", "unix:user:a"),
        "same-kind": ("unix:user:b", "unix:user:a"),
        "like-it": ("unix:uid:1", "unix:username:a"),
        "other": ("unix:uid:2", "unix:user:a"),
        "matches": ("unix:uid:1",),
    }.items():
        index.add(entry(f"/{name}", selectors=selectors(*asked)))
    found = index.possible(selectors("unix:uid:1"), frozenset({"unix:user"}))
    assert {"entry-of-kind", "entry-same-kind"} == {each.id for each in found}


def fleet(name, path, *asked):
    return registration(
        {
            "id": name,
            "spiffe_id": parse_id(f"spiffe://example.org{path}"),
            "parent_id": entry("/a").parent_id,
            "selectors": selectors(*asked),
        }
    )


def test_templates_that_differ_in_nothing_else():
    """Of many templates that ask for the same, those are looked at for which the caller has something."""
    index = EntryIndex()
    for number in range(1_000):
        index.add(fleet(f"n{number}", f"/t/{{k8s.pod-label:l{number}}}", "k8s:node-name:n"))
    index.add(fleet("both", "/t/{k8s.pod-label:l0}/{k8s.pod-label:l2}", "k8s:node-name:n"))
    held = selectors("k8s:node-name:n", "k8s:pod-label:l0:a", "k8s:pod-label:l2:b", "k8s:pod-label:l3:x:y")
    assert {"n0", "n2", "both"} == {each.id for each in index.match(held)}
    assert 3 >= len(list(index._drawers.among(held)))
    assert {"n0", "n2", "both"} == {each.id for each in index.match(held | selectors("k8s:sa:web"))}
    untold = frozenset({"k8s:node-name"})
    assert {"n0", "n2", "both"} == {each.id for each in index.possible(held - selectors("k8s:node-name:n"), untold)}
    index.remove("n0")
    assert {"n2", "both"} == {each.id for each in index.match(held)}


values = st.sampled_from(["k:a:x", "k:a:y", "k:b:x", "k:b:c:x", "m:a:x", "m:a:x/y", "t:1", "t:2"])
templates = st.builds(
    lambda number, path, asked: fleet(f"n{number}", path, *asked),
    st.integers(0, 9),
    st.sampled_from(["/{k.a}", "/{k.b}", "/{k.b:c}", "/{m.a}", "/{k.a}/{m.a}", "/{k.a}/{k.b}/{k.a}"]),
    st.sets(values, min_size=1, max_size=2),
)


@given(
    st.lists(templates, max_size=12),
    st.sets(values).map(lambda held: selectors(*held)),
    st.sets(st.sampled_from(["k", "k:a", "k:b", "m", "t"])).map(frozenset),
)
def test_templates_equal_looking_at_all(added, held, untold):
    """What a caller has by templates, and what it might have, is what looking at every one finds, filed as they may be."""
    index, left = EntryIndex(), {}
    for each in added:
        index.add(each)
        left[each.id] = each
    filled = {each.id for each in left.values() if each.selectors <= held and isinstance(each.expand(held), Entry)}
    assert filled == {each.id for each in index.match(held) if isinstance(each.expand(held), Entry)}
    assert {each.id for each in left.values() if might_match(each, held, untold)} == {
        each.id for each in index.possible(held, untold)
    }


def test_removing_leaves_nothing():
    """An index from which everything was removed is empty."""
    index = EntryIndex()
    index.add(entry("/a"))
    index.add(replace(entry("/a"), selectors=selectors("unix:uid:2")))
    index.remove("entry-a")
    index.remove("entry-a")
    index.possible(selectors("unix:uid:1"), frozenset({"unix"}))
    assert ({}, {}, {}) == (index._entries, index._drawers._filed, index._drawers._key_of)
    assert [{}] == [each._filed for each in index._blind.values()]


kinds = st.sampled_from(["a", "b", "c"])
mixed = st.sets(st.builds(Selector, kinds, st.sampled_from("12")), max_size=4).map(frozenset)


class TestPossible:
    @given(
        st.lists(
            st.tuples(
                st.booleans(),
                st.builds(lambda n, s: entry(f"/n{n}", selectors=s), st.integers(0, 5), mixed.filter(bool)),
            ),
            max_size=12,
        ),
        mixed,
        st.lists(st.sets(kinds).map(frozenset), min_size=1, max_size=4),
    )
    def test_equals_looking_at_all(self, history, held, asked):
        """What might match is exactly what lacks nothing but selectors of the types that are not known, at any time."""
        index, left = EntryIndex(), {}
        for adding, each in history:
            if adding:
                index.add(each)
                left[each.id] = each
            else:
                index.remove(each.id)
                left.pop(each.id, None)
            for untold in asked:
                missing = {entry_id: {s.type for s in each.selectors - held} for entry_id, each in left.items()}
                expected = {entry_id for entry_id, types in missing.items() if types and types <= untold}
                assert expected == {each.id for each in index.possible(held, untold)}

    @pytest.mark.parametrize(
        ("held", "untold", "expected"),
        [
            (("a:1", "k:n:x"), {"z"}, []),  # it has it
            (("a:1", "k:n:x"), {"k"}, ["fleet"]),  # it may have another such selector too, and then it has nothing
            (("a:1", "k:n:x", "k:n:y"), {"k"}, []),  # one more would not help
            (("a:1", "k:n:x/y"), {"k"}, []),
            (("a:1",), {"k"}, ["fleet"]),
            (("a:1",), {"k:n"}, ["fleet"]),  # of all that the attestor says this kind is not known
            (("a:1",), {"k:m"}, []),
            (("a:1",), {"z"}, []),  # what is missing was told: that there is none
            ((), {"a"}, []),
            ((), {"a", "k"}, ["fleet"]),
            (("k:n:x",), {"a"}, ["fleet"]),
            (("k:n:x/y",), {"a"}, []),  # it would not be filled in either
            (("k:n:x", "k:n:y"), {"a"}, []),
            (("a:2",), {"k"}, []),
        ],
    )
    def test_of_a_template(self, held, untold, expected):
        """One whose placeholders are not known might match too, and not if what is known of them does not fit."""
        index = EntryIndex()
        index.add(
            registration(
                {
                    "id": "fleet",
                    "spiffe_id": parse_id("spiffe://example.org/{k.n}"),
                    "parent_id": entry("/a").parent_id,
                    "selectors": selectors("a:1"),
                }
            )
        )
        found = index.possible(frozenset(map(Selector.parse, held)), frozenset(untold))
        assert expected == [each.id for each in found]

    def test_does_not_grow(self):
        """However the attestors fail together, only so many indexes are kept."""
        index = EntryIndex()
        index.add(entry("/a", "t0:1"))
        for number in range(3 * BLIND_INDEXES_KEPT):
            index.possible(frozenset(), frozenset({f"t{number}"}))
        assert BLIND_INDEXES_KEPT == len(index._blind)


class TestThatMatter:
    def test_one_whose_hint_is_taken(self):
        """What would lose its hint to an identity that the caller has changes nothing; what would take it does."""
        held = entry("/held", hint="h", created_at=2)
        younger, older = entry("/younger", hint="h", created_at=3), entry("/older", hint="h", created_at=1)
        assert [older] == list(that_matter([held], [younger, older]))

    def test_one_without_hint(self):
        """Whatever has no hint, or one of its own, matters."""
        possible = [entry("/plain"), entry("/own", hint="o")]
        assert possible == list(that_matter([entry("/held", hint="h")], possible))


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
