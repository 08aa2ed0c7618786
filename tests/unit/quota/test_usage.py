"""usage.py: how much each owner has, and whether more may be held."""

from hypothesis import given
from hypothesis import strategies as st
from sojourn.quota.usage import Held, Usage


class TestUsage:
    def test_nobody_is_in_it_without(self):
        """Whoever has nothing any more is forgotten, and to ask how much somebody has remembers nobody."""
        usage = Usage()
        usage.add("a")
        usage.add("b", 5)
        usage.remove("a")
        usage.remove("b", 2)
        assert (0, 3, {"b": 3}) == (usage["a"], usage["b"], dict(usage))

    def test_never_below_nothing(self):
        """Whoever gives back more than is counted has nothing, and no credit."""
        usage = Usage()
        usage.add("a")
        usage.remove("a", 5)
        usage.remove("z")
        usage.add("a")
        assert {"a": 1} == dict(usage)

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
    def test_the_counts_agree(self, moves):
        """After any coming and going each has as many as are inside, and those alone are known."""
        usage, inside = Usage(), []
        for who, comes in moves:
            if comes:
                usage.add(who)
                inside.append(who)
            elif who in inside:
                usage.remove(who)
                inside.remove(who)
            assert {each: inside.count(each) for each in set(inside)} == dict(usage)
            assert len(inside) == usage.total()


class TestHeld:
    def test_within_its_limit(self):
        """Up to the limit more may be held, exactly that much is still allowed, and others have their own."""
        held = Held(10)
        assert [True, True, False, True] == [held.hold(*each) for each in (("a", 4), ("a", 6), ("a", 1), ("b", 10))]

    def test_what_is_refused_is_held(self):
        """What is over the limit counts until it is let go, as whoever holds it has it by then."""
        held = Held(10)
        assert not held.hold("a", 11)
        assert not held.hold("a", 1)
        assert (True, 1) == (held.hold("a", -11), held["a"])
        assert held.hold("a", 9)

    def test_fewer_is_always_allowed(self):
        """To let something go is allowed also where what remains is over the limit."""
        held = Held(10)
        held.hold("a", 30)
        assert held.hold("a", -1)

    def test_nobody_is_in_it_without(self):
        """Whoever has nothing held any more is forgotten."""
        held = Held(10)
        held.hold("a", 3)
        held.hold("a", -3)
        held.hold("b", 0)
        assert {} == dict(held)
