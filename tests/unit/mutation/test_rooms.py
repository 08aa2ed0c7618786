"""tests/mutation: what the rooms are made of."""

import fnmatch
import tomllib
from pathlib import Path

import pytest
from explained import FILE
from rooms import ROOMS

TESTS = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ROOMS)
def test_all_is_there(name):
    """Each room has code to change, and tests that could notice, under the names by which it knows them."""
    room = ROOMS[name]
    assert [] == [each for each in room.files if not [*(TESTS.parent / "agent" / "sojourn").glob(each)]]
    assert [] == [each for each in room.tests if not (TESTS / each).exists()]


def test_what_is_explained_is_of_its_room():
    """Each mutant that is explained is of a file of the room that it is explained for."""
    lines = tomllib.loads(FILE.read_text())
    assert set(lines) <= set(ROOMS)
    functions = [(room, each["function"].split(".")) for room, found in lines.items() for each in found]
    assert len(functions) > 20
    for room, (_, *names) in functions:
        files = ["/".join(names[:end]) + ".py" for end in range(1, len(names))]
        assert any(fnmatch.fnmatch(file, each) for file in files for each in ROOMS[room].files), (room, names)
