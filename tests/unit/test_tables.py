"""The tables of the pages that people look things up in can be read: what is long stands below its table."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = (
    *("architecture.md", "services.md", "tasks.md", "tokens.md"),
    *sorted(str(path.relative_to(DOCS)) for name in ("operate", "reference") for path in (DOCS / name).glob("*.md")),
)
MOST = 300  # characters of a line, and so of a row and of each of its cells
# A link to a place of the same page, and a heading of it.
_LINK = re.compile(r"\]\(#([\w-]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def long_lines(text: str) -> list[int]:
    """The numbers of the lines that are too long, from 1."""
    return [number for number, line in enumerate(text.splitlines(), 1) if len(line) > MOST]


def anchor(heading: str) -> str:
    """What GitHub makes of a heading for links: lower case, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def dead_links(text: str) -> list[str]:
    """The places of the same page that are linked to and are not there."""
    return sorted(set(_LINK.findall(text)) - {anchor(each) for each in _HEADING.findall(text)})


@pytest.mark.parametrize("page", PAGES)
def test_no_line_is_long(page: str) -> None:
    """No line of these pages, and so no row and no cell of a table, has more than 300 characters."""
    assert [] == long_lines((DOCS / page).read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_what_a_cell_refers_to_is_there(page: str) -> None:
    """A link from a cell to a place further down on the same page leads to a heading that is there."""
    assert [] == dead_links((DOCS / page).read_text("utf-8"))


def test_long_lines_are_found() -> None:
    """A row of 301 characters is too long, and one of 300 is not."""
    assert [2] == long_lines("| " + "a" * 296 + " |\n| " + "a" * 297 + " |\n")


def test_dead_links_are_found() -> None:
    """A link to a heading of the page is good, whatever its punctuation, and one to no heading is not."""
    assert ["c"] == dead_links("## A task's end, `b`\n[x](#a-tasks-end-b) [y](#c) [z](other.md#d)\n")
