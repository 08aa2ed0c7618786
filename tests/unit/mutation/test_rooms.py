"""tests/mutation: what the rooms are made of."""

from pathlib import Path

import pytest
from rooms import ROOMS

TESTS = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ROOMS)
def test_all_is_there(name):
    """Each room has code to change, and tests that could notice, under the names by which it knows them."""
    room = ROOMS[name]
    assert [] == [each for each in room.files if not [*(TESTS.parent / "agent" / "sojourn").glob(each)]]
    assert [] == [each for each in room.tests if not (TESTS / each).exists()]
