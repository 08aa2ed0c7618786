"""What is said of each row: four verdicts, two of which are no."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from sojourn.oversight.controls.frameworks import Framework, Row
from sojourn.oversight.controls.journal import JournalWhole
from sojourn.oversight.controls.queries import QUERIES
from sojourn.oversight.controls.query import Answer, Journal

SHOWN, FAILED, NO_DATA, NOT_OURS = "shown", "failed", "no data", "not ours"
VERDICTS: Final = (SHOWN, FAILED, NO_DATA, NOT_OURS)
_BROKEN: Final = "the journal is not whole, so that a record which speaks against it may be missing"
_NOT_LOOKED: Final = "nobody has looked whether the journal is whole"


def needed(frameworks: Iterable[Framework]) -> list[str]:
    """The queries that their rows name."""
    return sorted({row.query for each in frameworks for row in each.rows if row.query})


def judged(
    frameworks: Iterable[Framework], answers: Mapping[str, Answer], journal: Journal
) -> Iterator[dict[str, Any]]:
    """Each framework with the verdicts on its rows, as JSON has it."""
    for each in frameworks:
        rows = [_row(row, answers.get(row.query), journal) for row in each.rows]
        yield {
            "name": each.name,
            "title": each.title,
            "version": each.version,
            "source": each.source,
            "titles": each.titles or None,
            "rows": rows,
        }


def _row(row: Row, answer: Answer | None, journal: Journal) -> dict[str, Any]:
    said = {"id": row.id, "title": row.title, "why_not_verified": row.why_not_verified or None}
    if answer is None:
        return {**said, **_NOTHING, "verdict": NOT_OURS, "why": row.not_ours}
    query = QUERIES[row.query]
    unlooked = row.query == JournalWhole.name and not journal.looked_at
    verdict, why = _verdict(answer, journal, unlooked=unlooked)
    seqs = list(answer.seqs)
    if verdict == FAILED and not answer.exceptions and journal.first_bad_seq:
        seqs = [journal.first_bad_seq]
    return {
        **said,
        "verdict": verdict,
        "why": why or None,
        "claim": row.claim,
        "query": row.query,
        "assertion": query.assertion,
        "n": answer.n,
        "exceptions": answer.exceptions,
        "records": seqs,
        "records_left_out": answer.left_out,
        "not_judged": answer.not_judged,
        "figures": dict(answer.figures),
    }


_NOTHING: Final[Mapping[str, Any]] = {
    "claim": None,
    "query": None,
    "assertion": None,
    "n": 0,
    "exceptions": 0,
    "records": [],
    "records_left_out": 0,
    "not_judged": 0,
    "figures": {},
}


def _verdict(answer: Answer, journal: Journal, *, unlooked: bool) -> tuple[str, str]:
    """The verdict, and why, where the figures do not tell."""
    if answer.exceptions or answer.seqs:
        return FAILED, ""
    if not answer.n:
        return NO_DATA, _NOT_LOOKED if unlooked else ""
    if not journal.whole:
        return FAILED, _BROKEN
    return SHOWN, ""


def counted(frameworks: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many rows have which verdict."""
    found = dict.fromkeys(VERDICTS, 0)
    for each in frameworks:
        for row in each["rows"]:
            found[row["verdict"]] += 1
    return found
