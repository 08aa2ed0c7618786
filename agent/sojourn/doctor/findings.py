"""What a check has found. A check that could not look says `unknown`, and never that all is well.

Which check that was is not said here: `checks.CHECKS` alone has the names.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PAGE: Final = "docs/operate/doctor.md"


class Verdict(StrEnum):
    OK = "ok"
    UNKNOWN = "unknown"
    WARN = "warn"
    FAIL = "fail"


# The exit status by the worst verdict: a failure is a refusal like any other, the rest are numbers of their own.
EXIT_STATUS: Final = {Verdict.OK: 0, Verdict.FAIL: 1, Verdict.WARN: 4, Verdict.UNKNOWN: 5}
_BY_WEIGHT: Final = list(Verdict)


@dataclass(frozen=True, slots=True)
class Finding:
    """One verdict: what was found, and what to do about it ('' if nothing is to be done)."""

    verdict: Verdict
    found: str
    do: str = ""


def link(check: str) -> str:
    """The section of a check on the page."""
    return f"{PAGE}#{check}"


def ok(found: str) -> Finding:
    return Finding(Verdict.OK, found)


def warn(found: str, do: str) -> Finding:
    return Finding(Verdict.WARN, found, do)


def fail(found: str, do: str) -> Finding:
    return Finding(Verdict.FAIL, found, do)


def unknown(why: str, do: str = "") -> Finding:
    return Finding(Verdict.UNKNOWN, why, do)


def worst(findings: Iterable[Finding]) -> Verdict:
    return max((each.verdict for each in findings), key=_BY_WEIGHT.index, default=Verdict.OK)
