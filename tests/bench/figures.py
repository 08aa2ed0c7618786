"""Figures and their table."""

import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: what was measured, once for each repetition."""

    name: str
    unit: str
    values: tuple[float, ...]

    @classmethod
    def of(cls, name: str, unit: str, values: Iterable[float]) -> "Figure":
        return cls(name, unit, tuple(values))

    @property
    def summary(self) -> tuple[float, float, float]:
        """Minimum, median, maximum."""
        return min(self.values), statistics.median(self.values), max(self.values)

    def json(self) -> dict[str, Any]:
        low, middle, high = self.summary
        return {
            "name": self.name,
            "unit": self.unit,
            "min": low,
            "median": middle,
            "max": high,
            "values": [round(value, 6) for value in self.values],
        }


@dataclass(frozen=True, slots=True)
class Line:
    """A numbered line of the bench: its figures, and why there are no more if it failed. `notes` are for the reader."""

    number: int
    title: str
    figures: tuple[Figure, ...]
    failure: str
    seconds: float
    notes: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        return {
            "line": self.number,
            "title": self.title,
            "figures": [figure.json() for figure in self.figures],
            "failure": self.failure or None,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 2),
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def ratios(above: Iterable[float], below: Iterable[float]) -> list[float]:
    """Repetition by repetition, so that what disturbs the machine disturbs both."""
    return [one / other for one, other in zip(above, below, strict=True)]


def table(lines: Iterable[Line]) -> str:
    rows = [("", "", "min", "median", "max", "n")]
    for line in lines:
        rows.append((f"{line.number}. {line.title}", "", "", "", "", ""))
        for figure in line.figures:
            numbers = [_number(value) for value in figure.summary]
            rows.append((f"   {figure.name}", figure.unit, *numbers, str(len(figure.values))))
        rows += [(f"   {note}", "", "", "", "", "") for note in line.notes]
        if line.failure:
            rows.append((f"   failed: {line.failure}", "", "", "", "", ""))
    measured = [row for row in rows if row[2]]
    widths = [max((len(row[column]) for row in measured), default=0) for column in range(6)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


# --- of other processes ---


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no memory: it has ended")
