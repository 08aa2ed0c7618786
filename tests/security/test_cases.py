"""docs/security-cases.md and the tests tell the same."""

import re
from pathlib import Path

import pytest
from harness.testnames import functions

TESTS = Path(__file__).resolve().parent.parent
TABLE = (TESTS.parent / "docs" / "security-cases.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLE.splitlines()
    if line.startswith("| ") and not line.startswith(("| Weakness", "| #"))
]
NAMED = re.findall(r"`([\w/]+\.py)::(test_\w+)`", TABLE)


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:40] for row in ROWS])
def test_each_case_has_a_test_or_a_reason(row: list[str]) -> None:
    """A case names tests, or says `none` and why."""
    said = row[-1]
    assert said.startswith("`") != said.startswith("none")
    assert len(said) > 20


def test_each_test_exists() -> None:
    """Every test that the table names is there."""
    assert [] == [(path, name) for path, name in NAMED if name not in functions(TESTS / path)]


def test_each_published_weakness_is_listed() -> None:
    """Every test that is named for a published weakness stands in the table under it."""
    named = {name for _, name in NAMED}
    files = [*(TESTS / "security").glob("test_published*.py"), TESTS / "security" / "test_http2.py"]
    for_one = re.compile(r"test_(CVE|SPI|SPIRE|GHSA|PyJWT|joserfc|py_spiffe|go_spiffe)_")
    found = {name for path in files for name in functions(path) if for_one.match(name)}
    assert len(found) > 40
    assert set() == found - named


def test_each_number_is_in_its_row() -> None:
    """A test is named for the weaknesses of the row in which it stands."""
    for row in ROWS:
        for year, number in re.findall(r"CVE_(\d{4})_(\d+)", row[-1]):
            assert f"CVE-{year}-{number}" in row[0] + row[1] or row[0].isdecimal()


def test_cases_are_complete() -> None:
    """The cases of who calls, of programs and of the wire are there, and that of others' attestors, each once."""
    assert [*map(str, range(1, 41)), "110"] == [row[0] for row in ROWS if row[0].isdecimal()]


def test_cases_of_tasks_are_complete() -> None:
    """The cases of delegation, the lifecycle, policy and oversight are there, each once."""
    numbers = (2, 3, 4, *range(9, 13), 14, 18, *range(20, 43), 57, 61, 103)
    assert [f"T{number}" for number in numbers] == [row[0] for row in ROWS if re.fullmatch(r"T\d+", row[0])]


def test_cases_of_bindings_are_complete() -> None:
    """The cases of bindings and of what is used again are there, each once."""
    assert ["B14", "B16", "B16a", "B17", "B27", "B56", "B59"] == [row[0] for row in ROWS if row[0].startswith("B")]


def test_cases_of_the_token_endpoint_are_complete() -> None:
    """The cases of exchange and of assertions are there, each once."""
    numbers = (*range(1, 7), 12, 13, 19, *range(51, 57), *range(59, 62))
    assert [f"E{number}" for number in numbers] == [row[0] for row in ROWS if re.fullmatch(r"E\d+", row[0])]


def test_cases_of_views_and_doors_are_complete() -> None:
    """The cases of what is taken from others' eyes and hands are there, each once."""
    assert [f"D{number}" for number in range(1, 12)] == [row[0] for row in ROWS if re.fullmatch(r"D\d+", row[0])]
