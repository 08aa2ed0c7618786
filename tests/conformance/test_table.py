"""The rows, the tests and docs/conformance.md tell the same."""

import re
from collections import Counter

import pytest
from conformance import table
from conformance.rows import DOCUMENTS, ROWS, Row

LEVELS = {"MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY", "must", "should"}


def reasons(row: Row) -> list[str]:
    return [reason for reason in (row.not_applicable, row.not_yet, row.choice) if reason]


def test_rows_are_whole() -> None:
    """Each row is there once, in order, with a known level, a role and a rule of one sentence."""
    numbers = [(list(DOCUMENTS).index(row.document), int(row.id.partition("-")[2])) for row in ROWS]
    assert sorted(set(numbers)) == numbers
    assert [] == [row.id for row in ROWS if row.level not in LEVELS]
    assert [] == [row.id for row in ROWS if not re.fullmatch(r"[ISVCBK](, [ISVCBK])*", row.who)]
    said = [text for row in ROWS for text in (row.rule, row.note, row.deviates, *reasons(row)) if text]
    assert [] == [text for text in said if not text.endswith(".") or "|" in text]


def test_rows_are_as_many_as_the_standards_have() -> None:
    """No row was lost: so many did the reading of the standards give."""
    expected = {"ID": 23, "X509": 34, "JWT": 21, "WIT": 20, "WEP": 25, "WAPI": 44, "BND": 21, "FED": 34}
    assert expected == Counter(row.document for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_each_row_is_tested_or_explained(row: Row) -> None:
    """A row has tests, or exactly one reason why not; a MUST or SHOULD is never a matter of choice."""
    tested, explained = bool(table.tests().get(row.id)), len(reasons(row))
    assert (1, 0) == (tested + explained, int(bool(row.choice) and row.level != "MAY"))
    assert tested or not row.deviates


def test_each_test_has_a_row_and_a_rule() -> None:
    """No test is for a row that is not there, and each states its rule in a sentence."""
    known = {row.id for row in ROWS}
    assert set() == set(table.tests()) - known
    assert [] == [name for name, rule in table.functions() if not re.search(r"\.$", rule.strip())]


def test_each_deviation_is_shown() -> None:
    """A row says that it deviates just when a test of it is marked so."""
    marked = {
        row
        for path in table.HERE.glob("test_*.py")
        for row in re.findall(r'deviates\("([A-Z0-9-]+)"\)', path.read_text())
    }
    assert {row.id for row in ROWS if row.deviates} == marked


def test_the_table_is_up_to_date() -> None:
    """docs/conformance.md is what the rows and tests give: `cd tests && python -m conformance.table` writes it."""
    assert table.render() == table.TABLE.read_text()
