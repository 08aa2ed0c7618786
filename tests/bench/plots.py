"""The plots of a run: one file for each growth."""

import re
from collections.abc import Iterable
from pathlib import Path

from figures import Growth, Line
from svg import plot


def file_name(line: Line, growth: Growth) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", growth.name.lower()).strip("-")
    return f"{line.number}-{words}.svg"


def write_plots(lines: Iterable[Line], folder: Path) -> list[Path]:
    """Write them, and return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for line in lines:
        for growth in line.growths:
            path = folder / file_name(line, growth)
            path.write_text(plot(growth.name, growth.along, growth.unit, growth.curves), encoding="utf-8")
            written.append(path)
    return written
