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
        ((5001, 7001), (0, 5001), True),  # logged in as the other, who tells another login
        ((5001, None), (5002, 5001), True),
        ((5001, 0), (0, None), False),  # each process without a login may say that it has root's
        ((5001, 0), (5002, 0), True),
    ],
)
def test_same_user(first: tuple[int, int | None], second: tuple[int, int | None], same: bool) -> None:
    """A user who is not root is one person whatever login its processes tell; of root's the logins count."""
    one, other = Person(*first, pid=1), Person(*second, pid=2)
    assert (same, same) == (one.same_user(other), other.same_user(one))


@pytest.mark.parametrize(
    ("first", "second", "also"),
    [
        (Person(0, 7001, 1), Person(0, 7002, 2), True),  # root is root where the one asked
        (Person(165536, None, 1, subuid_of=14001), Person(14001, None, 2), True),
        (Person(165536, None, 1, subuid_of=14001), Person(165537, 3, 2, subuid_of=14001), True),
        (Person(165536, None, 1, subuid_of=14001), Person(0, 14001, 2), True),
        (Person(165536, None, 1), Person(165537, None, 2), False),  # nobody's
        (Person(1, None, 1, frozenset({"spiffe://a/b"})), Person(2, None, 2, frozenset({"spiffe://a/b"})), True),
        (Person(0, None, 1), Person(4010, 0, 2), False),  # the requester may have said so to keep root out
        (Person(4010, 0, 1), Person(0, None, 2), True),
        (Person(4010, 0, 1), Person(0, 0, 2), True),
    ],
)
def test_also(first: Person, second: Person, *, also: bool) -> None:
    """Who decides and who asked are one by their user, be it by subordinate uids, by a login, or by an identity."""
    assert also == first.is_also(second)
