"""http2/README.md says what is there: its files, its limits, and the tests that it names."""

import re
from pathlib import Path

import pytest
import sojourn
from sojourn.http2 import frames, limits

ROOM = Path(sojourn.__file__).parent / "http2"
PAGE = (ROOM / "README.md").read_text()
LIMITS = {name for name in vars(limits) if name.isupper()}


def test_it_has_every_file():
    """Each file of the package is in the table of files, and no file that is not there."""
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+\.py)`", row)
    }
    assert {path.name for path in ROOM.glob("*.py")} - {"__init__.py"} == named


def test_it_has_every_limit():
    """Each limit of the package is named, and none that there is not."""
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", PAGE))
    assert LIMITS | {"FRAME_BYTES", "CONNECTION_WINDOW_BYTES"} == named - {"RESOURCE_EXHAUSTED", "SOJOURN_FUZZ_CASES"}


@pytest.mark.parametrize(("name", "number", "unit"), re.findall(r"`([A-Z]+_[A-Z_]+)`: (\d+)(?: (KiB|MiB|s)\b)?", PAGE))
def test_the_numbers_are_true(name, number, unit):
    """A number that stands beside a limit's name is the limit."""
    scale = {"KiB": 1024, "MiB": 1024 * 1024}.get(unit, 1)
    found = getattr(limits, name, None) or getattr(frames, name)
    assert found == int(number) * scale


def test_its_tests_are_there():
    """Each test that the page names is there."""
    named = set(re.findall(r"`(tests/[\w/.]+)`", PAGE))
    assert len(named) > 5
    assert [] == [name for name in named if not (ROOM.parents[2] / name).exists()]
