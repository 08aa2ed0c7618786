"""task_claim.py: what a token says of its task, written and read."""

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidToken
from sojourn.tasktoken.task_claim import HIGH, NORMAL, TaskClaim, class_of

WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
CLAIMS = st.builds(
    TaskClaim,
    WORDS,
    WORDS,
    st.integers(0, 2**60),
    st.sampled_from([NORMAL, HIGH]),
    st.dictionaries(WORDS, st.lists(WORDS, max_size=3).map(tuple), max_size=3),
    st.lists(WORDS, max_size=3).map(tuple),
    st.booleans(),
    st.lists(WORDS, max_size=3).map(tuple),
)
PLAIN = TaskClaim("t1", "report", 3, NORMAL)
FULL = TaskClaim("t2", "triage", 4, HIGH, {"read": ("ticket",)}, ("read",), True, ("close",))


@examples(100)
@given(CLAIMS)
def test_round_trip(claim):
    """What is claimed is read as it was, of any task."""
    assert claim == TaskClaim.read(claim.claimed())


@pytest.mark.parametrize("name", TaskClaim._fields)
def test_every_field_is_claimed(name):
    """Whichever field of two tasks differs, their claims differ: nothing that a task has is left out of its tokens."""
    other = PLAIN._replace(**{name: getattr(FULL, name)})
    assert PLAIN.claimed() != other.claimed()
    assert other == TaskClaim.read(other.claimed())


def test_what_is_not_said():
    """A claim has no member that says nothing."""
    assert {"id": "t1", "type": "report", "ver": 3, "class": "normal"} == PLAIN.claimed()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", 1),
        ("id", None),
        ("type", ["x"]),
        ("ver", "3"),
        ("ver", True),
        ("ver", 3.0),
        ("asks", "read"),
        ("also", "read"),
        ("also", {"read": 1}),
        ("also", [1]),
        ("approved", 1),
        ("approved", "true"),
        ("approved", None),
    ],
)
def test_malformed(name, value):
    """A claim with a member of another kind is refused."""
    with pytest.raises(InvalidToken, match="malformed"):
        TaskClaim.read({**PLAIN.claimed(), name: value})


@pytest.mark.parametrize("said", [HIGH, "", "Normal", None, 1, ["normal"]])
def test_class(said):
    """A class that is not exactly the normal one is the high one, also where there is no claim."""
    claims = {"task": {**PLAIN.claimed(), "class": said}}
    assert HIGH == class_of(claims) == TaskClaim.read(claims["task"]).task_class
    assert HIGH == class_of({}) == class_of({"task": "x"})
    assert NORMAL == class_of({"task": PLAIN.claimed()})
