"""docs/standards.md, docs/standards-people.md and the tests tell the same."""

import re
from pathlib import Path

import pytest
from harness.testnames import functions

TESTS = Path(__file__).resolve().parent.parent
DOCS = TESTS.parent / "docs"
PAGES = {each: (DOCS / each).read_text() for each in ("standards.md", "standards-people.md")}
TEXT = "\n".join(PAGES.values())
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| Section")
]
NAMED = re.findall(r"`([\w/]+\.py)::(test_\w+)`", TEXT)


@pytest.mark.parametrize("row", ROWS, ids=[" ".join(row[:2])[:60] for row in ROWS])
def test_each_section_has_a_status_and_a_place(row: list[str]) -> None:
    """A section is kept, or it is said why not; where that is seen is a test, or a document that is there."""
    section, asked, status, where = row
    assert section
    assert asked
    word = re.match(r"kept|in part: .|not( \(.+?\))?: .|n/a: .", status)
    assert word is not None, status
    links = re.findall(r"\]\(([\w./-]+)\)", where)
    assert links or re.fullmatch(r"(`[\w/]+\.py::test_\w+`(, )?)+", where), where
    assert all((DOCS / each).is_file() for each in links)
    if status.startswith("kept"):
        assert not links, "that it is kept is for a test to say"


def test_each_test_exists() -> None:
    """Every test that the document names is there."""
    assert len(NAMED) > 100
    assert [] == sorted(
        f"{path}::{name}"
        for path, name in set(NAMED)
        if not (TESTS / path).is_file() or name not in functions(TESTS / path)
    )


@pytest.mark.parametrize("page", PAGES)
def test_it_is_short(page: str) -> None:
    """Nobody reads more than 400 lines of tables."""
    assert len(PAGES[page].splitlines()) < 400
