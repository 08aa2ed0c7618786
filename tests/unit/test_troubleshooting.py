"""docs/operate/troubleshooting.md: whoever reads a code finds its cause there and what helps, and none that is not said."""

import ast
import re
from pathlib import Path

import pytest
from harness.cicode import load
from harness.trees import nodes_of
from sojourn.cli import misuse

pytestmark = pytest.mark.full

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operate" / "troubleshooting.md"
SOURCE = PAGE.parents[2] / "agent" / "sojourn"
TEXT = PAGE.read_text("utf-8")
codes = load("codes")
_ENTRY = re.compile(
    r"^### (\w+)\n\n\*\*Cause\.\*\* (.+?)\n\*\*What helps\.\*\* (.+?)(?=\n\n#|\Z)", re.MULTILINE | re.DOTALL
)
ENTRIES = {code: (cause, cure) for code, cause, cure in _ENTRY.findall(TEXT)}


def test_each_code_has_an_entry() -> None:
    """Every code of an error has a heading of its own on the page, and no heading is of a code that is never said."""
    known = {each.code for each in codes.kinds()} | {misuse.CODE}
    assert known == set(re.findall(r"^### (\S+)$", TEXT, re.MULTILINE)) == set(ENTRIES)


@pytest.mark.parametrize("code", ENTRIES)
def test_it_says_why_and_what_helps(code: str) -> None:
    """Each entry has a cause and what helps, in sentences that are short enough to read in a hurry."""
    for said in ENTRIES[code]:
        assert re.match(r"(\(\w+ ?\w* side\) )?[A-Z`\[]", said)
        assert said.rstrip().endswith((".", "meant to."))
        assert len(said) < 600


def reasons() -> set[str]:
    """What the code gives as `reason_code` of tokens and proofs, but for faults of bundle endpoints, servers and nodes."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        if not {"federation", "server", "upstream"} & set(path.parts) and path.name not in {
            "foreign_bundles.py",
            "nodes.py",
        }:
            for node in nodes_of(path):
                if isinstance(node, ast.keyword) and node.arg == "reason_code" and isinstance(node.value, ast.Constant):
                    found.add(node.value.value)
    return found


def test_each_reason_of_a_token_is_there() -> None:
    """Every reason that the code gives for a token or proof that is not good has a row, and no row is of another."""
    table = TEXT.partition("## Reasons of tokens and proofs")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    assert reasons() == {each for cell in cells for each in re.findall(r"`(\w+)`", cell)}


def test_the_table_of_codes_leads_here() -> None:
    """In docs/codes.md each error is a link to its entry, so that a code that is looked up there says what to do."""
    page = codes.page()
    assert [] == [
        each.code
        for each in codes.kinds()
        if f"| [`{each.code}`](operate/troubleshooting.md#{each.code}) |" not in page
    ]
