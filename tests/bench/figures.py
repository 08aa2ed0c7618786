"""Figures: what was measured, and of whom."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured, once for each repetition.

    Where the same is measured of several subjects, the figures have one name, and `subject` tells them apart: they stand
    in one row of the table. `failed`: some of the calls behind it failed, so it is shown with a mark.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    subject: str = ""
    failed: bool = False

    @classmethod
    def of(cls, name: str, unit: str, values: Iterable[float], *, subject: str = "", failed: bool = False) -> "Figure":
        return cls(name, unit, tuple(values), subject, failed)

    @property
    def summary(self) -> tuple[float, float, float]:
        """Minimum, median, maximum."""
        return min(self.values), statistics.median(self.values), max(self.values)

    def json(self) -> dict[str, Any]:
        low, middle, high = self.summary
        return {
            "name": self.name,
            "subject": self.subject or None,
            "unit": self.unit,
            "min": low,
            "median": middle,
            "max": high,
            "values": [round(value, 6) for value in self.values],
            "failed": self.failed,
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Figure":
        return cls(told["name"], told["unit"], tuple(told["values"]), told["subject"] or "", told["failed"])


@dataclass(frozen=True, slots=True)
class Growth:
    """How a figure changes along something: for each subject a curve of what was there, and what was measured then."""

    name: str
    unit: str
    along: str  # "registered entries"
    curves: dict[str, list[tuple[float, Sequence[float]]]]

    @property
    def figures(self) -> list[Figure]:
        return [
            Figure.of(f"{self.name}, {at:,g} {self.along}", self.unit, values, subject=subject)
            for subject, curve in self.curves.items()
            for at, values in curve
        ]

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "along": self.along,
            "curves": {
                subject: [{"at": at, "values": [round(value, 6) for value in values]} for at, values in curve]
                for subject, curve in self.curves.items()
            },
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Growth":
        curves = {
            subject: [(point["at"], point["values"]) for point in curve] for subject, curve in told["curves"].items()
        }
        return cls(told["name"], told["unit"], told["along"], curves)


class Missing(Exception):
    """A part that is not on this machine. Says which, and how to get it."""


@dataclass(frozen=True, slots=True)
class Line:
    """A numbered line of the bench: what it found, and why there is no more if it failed or something was missing.

    `notes` are for the reader.
    """

    number: int
    title: str
    figures: tuple[Figure, ...]
    failure: str = ""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    missing: str = ""
    growths: tuple[Growth, ...] = ()
    group: str = ""

    def json(self) -> dict[str, Any]:
        return {
            "line": self.number,
            "group": self.group,
            "title": self.title,
            "figures": [figure.json() for figure in self.figures],
            "growths": [growth.json() for growth in self.growths],
            "failure": self.failure or None,
            "missing": self.missing or None,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 2),
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Line":
        return cls(
            told["line"],
            told["title"],
            tuple(map(Figure.from_json, told["figures"])),
            told["failure"] or "",
            told["seconds"],
            tuple(told["notes"]),
            told["missing"] or "",
            tuple(map(Growth.from_json, told["growths"])),
            told["group"],
        )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def ratios(above: Iterable[float], below: Iterable[float]) -> list[float]:
    """Repetition by repetition, so that what disturbs the machine disturbs both."""
    return [one / other for one, other in zip(above, below, strict=True)]
