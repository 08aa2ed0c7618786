"""shares.py: of what is there for all nobody takes more than half of what others leave."""

import pytest
from sojourn.quota.shares import may_take


def taken(most, users):
    """How much each of so many users has, one after the other taking all they may."""
    found = []
    for _ in range(users):
        own, others = 0, sum(found)
        while may_take(own, others + own, most):
            own += 1
        found.append(own)
    return found


def test_one_after_the_other():
    """One alone has half, and each further one half of what is left; whoever comes has some of it while there is any."""
    found = taken(20_000, 20)
    assert [10_000, 5_000, 2_500, 1_250, 625] == found[:5]
    assert (20_000, 15) == (sum(found), sum(each > 0 for each in found))


@pytest.mark.parametrize("most", range(1, 40))
def test_never_more_than_there_is(most):
    """Of any room all is taken in the end, and no more; and the first that comes has something."""
    found = taken(most, 10)
    assert (most, True) == (sum(found), found[0] >= 1)


def test_room_that_is_given_back():
    """Who has more than a share, since others came later, takes no more until there is room for that."""
    assert not may_take(10, 25, 30)
    assert may_take(10, 15, 30)
