"""The page of promises: tests that promise nothing are found, and each promise stands in its area with its test."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
_spec = importlib.util.spec_from_file_location("promises", ROOT / ".ci" / "promises.py")
assert _spec is not None
assert _spec.loader is not None
promises = importlib.util.module_from_spec(_spec)
sys.modules["promises"] = promises
_spec.loader.exec_module(promises)

GOOD = '''"""tokens.py: what tokens say."""

class TestBrokenGlass:
    def test_one(self):
        """A token says `a_b` and *all*."""

async def test_two():
    """Nothing else\tis
    said.

    This is how.
    """
'''


def faults(body: str) -> list[str]:
    """What is wrong with a file of these tests."""
    return promises.faults(promises.read("unit/test_a.py", f'"""A file."""\n{body}'))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def test_a(): pass", "promises nothing"),
        ('def test_a():\n    """It works"""', "is no sentence"),
        ('def test_a():\n    """So is another."""', "leans on the test before it"),
        ('def test_a():\n    """A is B."""\ndef test_b():\n    """A is B."""', "says word by word what test_a says"),
        ('class TestA:\n    def test_a(self):\n        """A"""', "is no sentence"),
    ],
)
def test_faults(body, says):
    """A test without a sentence of its own that can stand by itself is told with its place."""
    [found] = faults(body)
    assert says in found
    assert found.startswith("tests/unit/test_a.py:")


@pytest.mark.parametrize(
    ("source", "full"),
    [
        ('def test_a():\n    """A."""', False),
        ('@pytest.mark.root\n@pytest.mark.full\ndef test_a():\n    """A."""', True),
        ('@pytest.mark.full\nclass TestA:\n    def test_a(self):\n        """A."""', True),
        ('class TestA:\n    pytestmark = pytest.mark.full\n    def test_a(self):\n        """A."""', True),
        ('pytestmark = [pytest.mark.root, pytest.mark.full]\ndef test_a():\n    """A."""', True),
        ('pytestmark = pytest.mark.root\ndef test_a():\n    """A."""', False),
    ],
)
def test_what_make_test_leaves_out(source, full):
    """A promise says whether its test is of `make test-all` alone, be its function, class or file marked so."""
    [found] = promises.read("a.py", source).promises
    assert full == found.full


def test_a_file_that_says_nothing():
    """A file of tests that does not say what it is about is told."""
    assert ["tests/a.py:1: says nothing: give it a docstring that says what it is about"] == promises.faults(
        promises.read("a.py", "x = 1")
    )


def test_pages():
    """Each promise is one line of its area's page, with a link to its test, below what its file and class are about."""
    room = promises.read("unit/test_a.py", GOOD)
    assert [] == promises.faults(room)
    made = promises.pages([room], [promises.Area("tokens", "Tokens", "What they say.", ("unit/*",))])
    page = made[Path("promises/tokens.md")].splitlines()
    assert '### <a id="unit-a"></a>What tokens say.' in page
    assert "**Broken glass**" in page
    assert "- A token says `a_b` and \\*all\\*. [`test_one`](../../tests/unit/test_a.py)" in page
    assert "- Nothing else is said. [`test_two`](../../tests/unit/test_a.py)" in page
    assert "- What tokens say. [2](promises/tokens.md#unit-a)" in made[Path("promises.md")].splitlines()


def test_areas():
    """A file is of the area that names it most narrowly; of none if nobody does."""
    among = [promises.Area("a", "", "", ("unit/*",)), promises.Area("b", "", "", ("unit/test_x.py",))]
    assert ["a", "b", None] == [
        promises.area_of(each, among) for each in ("unit/test_y.py", "unit/test_x.py", "security/test_x.py")
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [("TestBrokenGlass", "Broken glass"), ("TestF8Case29Forged", "F8 case 29 forged"), ("TestCRL", "CRL")],
)
def test_classes_in_words(name, words):
    """A class that has no docstring is called by its name, in words."""
    assert words == promises._in_words(name)
