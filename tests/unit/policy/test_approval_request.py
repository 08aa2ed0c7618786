"""Who counts as one and the same person where two must agree."""

import pytest
from sojourn.policy.approval_request import Person


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ((5001, 7001), (5001, 7002), True),  # logins that one user has made up
        ((5001, None), (5001, 7002), True),
        ((5001, 5001), (5001, 5001), True),
        ((0, 7001), (0, 7002), False),  # two operators, who have become root
        ((0, 7001), (0, 7001), True),
        ((0, None), (0, 7001), True),  # who can tell
        ((5001, 7001), (5002, 7001), True),
        ((5001, 7001), (5002, 7002), False),
        ((5001, None), (5002, None), False),
    ],
)
def test_same_user(first: tuple[int, int | None], second: tuple[int, int | None], same: bool) -> None:
    """A user who is not root is one person whatever login its processes tell; of root's the logins count."""
    one, other = Person(*first, pid=1), Person(*second, pid=2)
    assert (same, same) == (one.same_user(other), other.same_user(one))
