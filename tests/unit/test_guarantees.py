"""docs/guarantees.md names tests that there are, and few enough guarantees that somebody reads them all."""

import re
from pathlib import Path

import pytest
from harness.testnames import functions

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "guarantees.md").read_text("utf-8")
# Each guarantee is an item of a numbered list: its sentence, then its tests, to the next item or heading.
ITEMS = re.findall(r"^(\d+)\. (.+?)(?=^\d+\. |^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
SENTENCES = [" ".join(item.partition("Proved by")[0].split()) for _, item in ITEMS]
FEWEST, MOST = 80, 120


def linked(item: str) -> list[tuple[str, str]]:
    """The tests that a guarantee links to: the name of each, and its file as seen from docs/."""
    return re.findall(r"\[`(test_\w+)`\]\((\.\./tests/[\w/]+\.py)\)", item)


@pytest.mark.parametrize("item", [item for _, item in ITEMS], ids=[number for number, _ in ITEMS])
def test_each_is_proved(item: str) -> None:
    """A guarantee is one sentence with links to tests, and each test is in the file that its link leads to."""
    sentence, proved, links = item.partition("Proved by")
    assert proved
    assert re.fullmatch(r"(?:(?!\. [A-Z]).)+\.", " ".join(sentence.split()))
    found = linked(links)
    assert len(found) == links.count("](") > 0
    assert [] == [(name, path) for name, path in found if name not in functions(DOCS / path)]


def test_how_many_there_are() -> None:
    """The list of guarantees has 80 to 120, numbered from 1 without a gap."""
    assert FEWEST <= len(ITEMS) <= MOST
    assert [int(number) for number, _ in ITEMS] == list(range(1, len(ITEMS) + 1))


def test_nothing_is_said_twice() -> None:
    """No guarantee is in the list twice."""
    assert len(set(SENTENCES)) == len(SENTENCES)
