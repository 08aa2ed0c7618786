"""seldom.py: what most tasks never have takes no place in them."""

from sojourn.tasks.seldom import HasSeldom, Seldom
from sojourn.tasks.spent import NOTHING


class Thing(HasSeldom):
    """Something with two of such attributes."""

    color = Seldom("")
    parts = Seldom[tuple[int, ...]](())


def test_reads_as_its_default():
    """One that was never set reads as its default."""
    assert ("", ()) == (Thing().color, Thing().parts)


def test_set_and_set_back():
    """Each is set by itself, of one thing alone; nothing is kept of what was set back."""
    one, other = Thing(), Thing()
    one.color, one.parts = "red", (1,)
    assert ("red", (1,), "", ()) == (one.color, one.parts, other.color, other.parts)
    one.color = ""
    assert {"parts": (1,)} == one.seldom
    one.parts = ()
    assert one.seldom is NOTHING


def test_replaced():
    """Whoever has a copy keeps what that said."""
    one = Thing()
    one.color = "red"
    other = Thing(seldom=one.seldom)
    one.color = "blue"
    assert ("blue", "red") == (one.color, other.color)
