"""lru.py: what was used last is kept, within a number and a weight, and no owner takes more than its share."""

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.quota.lru import Lru, Recent, Room


@pytest.fixture
def recent():
    return Recent(Room(4, 100), Room(2, 60))


def put(recent, keys, owner="a", weight=1):
    for key in keys:
        recent.put(key, key.upper(), owner, weight)


def test_found_again(recent):
    """What was put is found by its key, the last value of it, and nothing else is."""
    put(recent, "x")
    recent.put("x", "other", "a", 1)
    assert ("other", None, 1, 1) == (recent.get("x"), recent.get("y"), len(recent), recent.weight)


def test_an_owner_has_a_share(recent):
    """An owner that puts ever more loses its own that it did not use for longest, and nobody else's."""
    put(recent, "o", owner="b")
    put(recent, "xy")
    recent.get("x")
    put(recent, "z")
    assert ["O", "X", None, "Z"] == [recent.get(key) for key in "oxyz"]


def test_an_owner_has_a_share_of_the_weight(recent):
    """An owner whose values weigh ever more loses its own that it did not use for longest, and nobody else's."""
    put(recent, "xy", weight=40)
    assert (None, "Y", 40) == (recent.get("x"), recent.get("y"), recent.weight)


def test_too_heavy(recent):
    """A value that is more than a share is not kept, and drives out nothing; one of its key goes."""
    put(recent, "xy")
    put(recent, "y", weight=61)
    assert ("X", None) == (recent.get("x"), recent.get("y"))


@pytest.mark.parametrize(("weight", "left"), [(1, "bcde"), (50, "de")])
def test_the_room_of_all(recent, weight, left):
    """When all have filled it, what was not used for longest goes, whosever it is."""
    for key in "abcde":
        put(recent, key, owner=key, weight=weight)
    assert left == "".join(key for key in "abcde" if recent.get(key))


def test_forgetting(recent):
    """One value, those of an owner, those that are so, or all are forgotten."""
    put(recent, "xy")
    put(recent, "z", owner="b")
    recent.drop("x")
    recent.drop("x")
    recent.drop_owner("b")
    recent.drop_owner("nobody")
    assert [None, "Y", None] == [recent.get(key) for key in "xyz"]
    put(recent, "z", owner="b")
    recent.drop_if(lambda value: value == "Y")
    assert [None, "Z"] == [recent.get(key) for key in "yz"]
    recent.clear()
    assert (None, 0, 0) == (recent.get("z"), len(recent), recent.weight)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz"), st.integers(0, 70), st.booleans())))
def test_never_more_than_there_is_room_for(steps):
    """Whatever is put and dropped, neither the number nor the weight is ever exceeded, and both are counted rightly."""
    recent, held = Recent(Room(4, 100), Room(2, 60)), {}
    for key, owner, weight, dropping in steps:
        if dropping:
            recent.drop(key)
        else:
            recent.put(key, (owner, weight), owner, weight)
        held = {key: recent.get(key) for key in "abcdefgh" if recent.get(key) is not None}
        assert (len(held), sum(weight for _, weight in held.values())) == (len(recent), recent.weight)
        assert len(held) <= 4
        assert recent.weight <= 100
        for each in "xyz":
            own = [weight for owner, weight in held.values() if owner == each]
            assert len(own) <= 2
            assert sum(own) <= 60


def lru_of(keys, room=3, **options):
    lru = Lru(room, **options)
    for key in keys:
        lru.put(key, key.upper())
    return lru


class TestLru:
    def test_what_was_not_used_for_longest_goes(self):
        """When there is one too many, the value that was neither put nor asked for for longest goes, and is told."""
        lru = lru_of("abc")
        assert "A" == lru.get("a")
        assert ("b", "B") == lru.put("d", "D")
        assert ("cad", ["C", "A", "D"], 3) == ("".join(lru), lru.values(), len(lru))

    def test_put_again(self):
        """A value that is put under a key again is the newest, alone under it, and drives nothing out."""
        lru = lru_of("abc")
        assert lru.put("a", "other") is None
        assert (["B", "C", "other"], 3) == (lru.values(), len(lru))

    def test_looking_is_no_use(self):
        """Whether a key is there may be looked at without keeping its value longer."""
        lru = lru_of("abc")
        assert "a" in lru
        assert "d" not in lru
        lru.put("d", "D")
        assert "a" not in lru

    def test_by_age(self):
        """By age, what was put first goes, however often it was asked for since."""
        lru = lru_of("abc", by_age=True)
        assert "A" == lru.get("a")
        assert ("a", "A") == lru.put("d", "D")
        assert lru.put("b", "new") is None
        assert ("c", "C") == lru.put("e", "E")
        assert ["D", "new", "E"] == lru.values()

    def test_an_empty_value_is_a_value(self):
        """A value that is empty is found and used as any other."""
        lru = Lru(2)
        lru.put("a", ())
        lru.put("b", "B")
        assert () == lru.get("a")
        assert ("b", "B") == lru.put("c", "C")

    def test_forgetting(self):
        """One value, the next ones up to some other, those that are so, or all are forgotten."""
        lru = lru_of("abcdef", room=6)
        assert ("C", None, None) == (lru.drop("c"), lru.drop("c"), lru.get("c"))
        lru.drop_while(lambda value: value in "ABE")
        assert "def" == "".join(lru)
        lru.drop_if(lambda value: value in "EX")
        assert "df" == "".join(lru)
        lru.drop_while(lambda _value: True)
        assert 0 == len(lru)
        lru.put("a", "A")
        lru.clear()
        assert (0, None) == (len(lru), lru.get("a"))

    @given(
        st.integers(1, 4),
        st.booleans(),
        st.lists(st.tuples(st.sampled_from(["get", "put", "drop"]), st.sampled_from("abcdef"))),
    )
    def test_as_a_list_would(self, room, by_age, steps):
        """Whatever is asked for, put and dropped, the same is kept as in a list of which the first goes."""
        lru, kept = Lru(room, by_age=by_age), OrderedDict()
        for number, (step, key) in enumerate(steps):
            if step == "get":
                assert kept.get(key) == lru.get(key)
                if key in kept and not by_age:
                    kept[key] = kept.pop(key)
            elif step == "drop":
                assert kept.pop(key, None) == lru.drop(key)
            else:
                kept.pop(key, None)
                kept[key] = number
                first = next(iter(kept.items())) if len(kept) > room else None
                assert first == lru.put(key, number)
                if first is not None:
                    del kept[first[0]]
            assert list(kept) == list(lru)
