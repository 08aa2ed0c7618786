"""Puts a run of the bench into docs/performance.md: `make bench-report`.

Usage: report.py [FILE]. Of the document it writes what stands between `<!-- NAME -->` and `<!-- end of NAME -->`, from
the figures in FILE (bench.json), and the plots beside it; the rest is written by hand and stays.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from aims import AIMS
from figures import Line
from plots import file_name, write_plots
from table import LEGEND, block, cell, remarks

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
PAGE = DOCS / "performance.md"
PLOTS = DOCS / "plots"


def rewritten(page: str, parts: Mapping[str, str]) -> str:
    """The page with these parts in their places. Raise ValueError if it has no place for one."""
    for name, text in parts.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->\n)", re.DOTALL)
        if not place.search(page):
            raise ValueError(f"the page has no place for {name!r}")
        page = place.sub(lambda found, text=text: f"{found[1]}\n{text.strip()}\n\n{found[2]}", page)
    return page


def machine_of(run: Mapping[str, Any]) -> str:
    machine, versions = run["machine"], run["versions"]
    load = ", ".join(map(str, machine["load_before"]))
    rows = [
        ("Machine", f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_gib']} GiB"),
        ("System", f"Linux {machine['kernel']}, clock source {machine['clock']}, data on {machine['file_system']}"),
        ("Before the run", f"load {load} (1, 5, 15 minutes); CPUs {machine['busy_before']:.0%} busy"),
        ("Run", f"{machine['began']}, {run['seconds'] / 60:.0f} minutes{', quick' if run['quick'] else ''}"),
        *versions.items(),
    ]
    return _markdown(("", ""), rows)


def aims_of(lines: Mapping[int, Line]) -> str:
    rows = []
    for aim in AIMS:
        found = aim.found(lines)
        if found is None:
            rows.append((aim.what, aim.asked, "not measured", "", str(aim.line)))
        else:
            rows.append((aim.what, aim.asked, cell(found), "yes" if aim.reached(found) else "**no**", str(aim.line)))
    return _markdown(("What", "Aim", "Found", "Reached", "Line"), rows)


def figures_of(lines: Sequence[Line]) -> str:
    written = [f"{LEGEND[0].upper()}{LEGEND[1:]}."]
    for group, members in groupby(lines, key=lambda line: line.group):
        written.append(f"### {group}")
        for line in members:
            made = block(line)
            written.append(f"**{line.number}. {line.title}**")
            if made.rows:
                written.append(_markdown(("", "", *made.subjects, "n"), made.rows))
            if said := list(remarks(line)):
                written.append("\n".join(f"- {_escaped(each)}" for each in said))
    return "\n\n".join(written)


def plots_of(lines: Sequence[Line]) -> str:
    shown = [
        f"![{line.number}. {growth.name}, along {growth.along}](plots/{file_name(line, growth)})"
        for line in lines
        for growth in line.growths
    ]
    return "\n\n".join(shown) or "None in this run."


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    aligned = ["---" if number < 2 else "--:" for number in range(len(head))]
    return "\n".join(f"| {' | '.join(map(_escaped, row))} |" for row in (head, aligned, *rows))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def main(file: Path, page: Path = PAGE, plots: Path = PLOTS) -> None:
    if not file.exists():
        sys.exit(f"there is no {file}: `make bench` writes it")
    run = json.loads(file.read_text(encoding="utf-8"))
    lines = [Line.from_json(each) for each in run["lines"]]
    parts = {
        "machine": machine_of(run),
        "aims": aims_of({line.number: line for line in lines}),
        "plots": plots_of(lines),
        "figures": figures_of(lines),
    }
    page.write_text(rewritten(page.read_text(encoding="utf-8"), parts), encoding="utf-8")
    written = write_plots(lines, plots)
    for path in set(plots.glob("*.svg")) - set(written):
        path.unlink()
    print(f"{page}: {len(lines)} lines, {len(written)} plots, from {file}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "bench.json"))
