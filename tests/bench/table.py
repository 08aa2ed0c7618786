"""The table: a block for each line, a row for each thing measured, a column for each subject."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from figures import Figure, Line

LEGEND = "median [minimum … maximum] over n repetitions; ratios repetition by repetition; ! some calls failed"


@dataclass(frozen=True, slots=True)
class Block:
    """A line of the bench as rows of text: name, unit, a cell for each of `subjects`, number of repetitions."""

    line: Line
    subjects: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def block(line: Line) -> Block:
    figures = [*line.figures, *(figure for growth in line.growths for figure in growth.figures)]
    subjects = tuple(dict.fromkeys(figure.subject for figure in figures))
    by_name: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        by_name.setdefault(figure.name, {})[figure.subject] = figure
    rows = []
    for name, found in by_name.items():
        first = next(iter(found.values()))
        cells = [cell(found[subject]) if subject in found else "" for subject in subjects]
        rows.append((name, first.unit, *cells, str(len(first.values))))
    return Block(line, subjects, tuple(rows))


def cell(figure: Figure) -> str:
    low, middle, high = map(number, figure.summary)
    said = middle if len(figure.values) == 1 else f"{middle} [{low} … {high}]"
    return f"{said} !" if figure.failed else said


def number(value: float) -> str:
    """Three digits, or all before the point."""
    if value == 0:
        return "0"
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 100 else f"{value:.3g}"


def remarks(line: Line) -> Iterator[str]:
    yield from line.notes
    if line.missing:
        yield f"missing: {line.missing}"
    if line.failure:
        yield f"failed: {line.failure}"


def text(lines: Iterable[Line]) -> str:
    """For a terminal."""
    written, group = [], ""
    for line in lines:
        if line.group != group:
            group = line.group
            written += ["", f"== {group}"]
        made = block(line)
        written += ["", f"{line.number}. {line.title}"]
        rows = [("", "", *made.subjects, "n"), *made.rows] if made.rows else []
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
        for row in rows:
            cells = [
                each.ljust(width) if column < 2 else each.rjust(width)
                for column, (each, width) in enumerate(zip(row, widths, strict=True))
            ]
            written.append(f"   {'  '.join(cells)}".rstrip())
        written += [f"   {remark}" for remark in remarks(line)]
    return "\n".join([*written, "", LEGEND]).lstrip("\n")
