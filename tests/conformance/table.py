"""Writes docs/conformance.md from the rows and the tests. In `tests`: python -m conformance.table"""

import ast
import functools
import re
from collections import Counter
from pathlib import Path

from conformance.rows import DOCUMENTS, ROWS, Row
from harness.trees import tree_of

HERE = Path(__file__).resolve().parent
TABLE = HERE.parent.parent / "docs" / "conformance.md"
VERDICTS = {
    "kept": "its tests pass",
    "deviates": "a test shows where it is not kept, and is expected to fail",
    "choice": "a permission; what is made of it is said",
    "not yet": "what it waits for is said",
    "not applicable": "the reason is said",
}
HEAD = """\
# Conformance with the SPIFFE standards

Generated from `tests/conformance/rows.py` and the tests beside it: `cd tests && python -m conformance.table`. Do not
edit. The standards are those of github.com/spiffe/spiffe at commit 665a28f3253e (2026-07-01); the broker's
endpoint is not in it yet. The level is the standard's word; small letters: it says so without one. Who: I issuer, V validator,
S server, C client, B publisher of a bundle, K its reader. Each test of an agent runs on one of its own authority, and once more
on a node of a real SPIRE server, which signs there; but for what only who signs itself can be asked, and WIT-SVIDs.
"""


def tests() -> dict[str, list[str]]:
    """The names of the tests by row, as they stand in the files, in order."""
    found: dict[str, list[str]] = {}
    for name, _ in functions():
        match = re.match(r"test_([A-Z0-9]+)_(\d+)_", name)
        if match:
            found.setdefault(f"{match[1]}-{match[2]}", []).append(name)
    return found


@functools.cache
def functions() -> list[tuple[str, str]]:
    """Name and docstring of each test function in this folder."""
    return [
        (node.name, ast.get_docstring(node) or "")
        for path in sorted(HERE.glob("test_*.py"))
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]


def verdict(row: Row) -> str:
    for name in ("deviates", "choice", "not_yet", "not_applicable"):
        if getattr(row, name):
            return name.replace("_", " ")
    return "kept"


def render() -> str:
    """The whole document."""
    by_row, counts = tests(), Counter(verdict(row) for row in ROWS)
    lines = [HEAD, "| Verdict | Rows | Meaning |", "|---|---|---|"]
    lines += [f"| {name} | {counts[name]} | {meaning} |" for name, meaning in VERDICTS.items()]
    for document, title in DOCUMENTS.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| Row | Level | Who | Section | Rule | Verdict | Test |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_line(row, by_row.get(row.id, [])) for row in ROWS if row.document == document]
    return "\n".join(lines) + "\n"


def _line(row: Row, names: list[str]) -> str:
    said = row.deviates or row.choice or row.not_yet or row.not_applicable
    shown = f"{verdict(row)}: {said}" if said else verdict(row)
    rule = f"{row.rule} {row.note}".strip()
    cells = (row.id, row.level, row.who, row.section, rule, shown, ", ".join(f"`{name}`" for name in names) or "none")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    TABLE.write_text(render())
