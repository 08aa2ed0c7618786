"""Measures Sojourn, beside the peers that are on this machine: `make bench`.

Prints a table and writes all figures to a file; progress goes to standard error. No figure fails the run. What needs a
part that is not here says which, and the run goes on. A line that breaks says why, the others go on, and the exit
status is 1.
"""

import argparse
import itertools
import json
import signal
import subprocess
import sys
from operator import itemgetter
from pathlib import Path
from time import monotonic
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from catalogue import Spec, catalogue
from figures import Figure, Growth, Line, Missing
from ground import FULL, QUICK, Bench
from held import held
from machine import machine, versions
from plots import write_plots
from table import text

FORMAT = 2  # of the file
QUIET = 0.05  # a machine that is busier than that before the run has others on it


def measured(group: str, spec: Spec, bench: Bench) -> Line:
    """One line, with what it gave before it failed, if it did."""
    number, title, measure = spec
    bench.say(f"{title} ...", line=number)
    begun = monotonic()
    found: list[Figure | Growth | str] = []
    failure = missing = ""
    try:
        found.extend(measure(bench))
        _distinct(found)
        found.extend(filter(None, [held(number, found)]))
    except Missing as error:
        missing = str(error)
        bench.say(f"missing: {missing}")
    except Exception as error:
        failure = reason(error)
        bench.say(f"FAILED: {failure}")
        bench.end_group()
    return Line(
        number,
        title,
        tuple(each for each in found if isinstance(each, Figure)),
        failure,
        monotonic() - begun,
        tuple(each for each in found if isinstance(each, str)),
        missing,
        tuple(each for each in found if isinstance(each, Growth)),
        group,
    )


def _distinct(found: list[Figure | Growth | str]) -> None:
    """Two figures of one name and subject would hide each other in the table."""
    names = [(each.name, each.subject) for each in found if isinstance(each, Figure)]
    if twice := {each for each in names if names.count(each) > 1}:
        raise ValueError(f"there is more than one figure of this name and subject: {sorted(twice)}")


def reason(error: Exception) -> str:
    """One sentence."""
    said = str(error)
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        stderr = error.stderr
        said = f"{said} {stderr.decode(errors='replace') if isinstance(stderr, bytes) else stderr}"
    return " ".join(f"{type(error).__name__}: {said}".split())[:300]


def kept(report: dict[str, Any], path: Path) -> None:
    """Write it whole, or leave what was there."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(report, indent=1) + "\n")
    fresh.replace(path)


def terminated(*_: object) -> None:
    raise SystemExit(143)  # so that all that was started is ended on the way out


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.py",
        description="Measure Sojourn, beside the real peers that are on this machine (`make bench-peers` gets them).",
        epilog="Each figure is a median with minimum and maximum over repetitions, in which the subjects take turns.",
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, to see that it runs: under 3 minutes")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, default=Path("bench.json"), help="where all figures go (bench.json)"
    )
    parser.add_argument("--plots", metavar="FOLDER", type=Path, help="write an SVG there for each growth")
    parser.add_argument("--line", metavar="N", type=int, action="append", help="this line only; may be repeated")
    parser.add_argument("--list", action="store_true", help="only say which lines there are")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    wanted = [each for each in catalogue() if not options.line or each[1][0] in options.line]
    if options.list:
        for group, (number, title, _) in wanted:
            print(f"{number:3}  {group}: {title}")
        return 0
    if unknown := set(options.line or ()) - {spec[0] for _, spec in wanted}:
        print(f"bench: there is no line {', '.join(map(str, sorted(unknown)))}: see --list", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, terminated)
    begun, before, made_of = monotonic(), machine(), versions()
    if float(str(before["busy_before"])) > QUIET and not options.quick:
        print(f"bench: the machine is {before['busy_before']:.0%} busy: its figures will say so", file=sys.stderr)
    with Bench(QUICK if options.quick else FULL) as bench:
        lines: list[Line] = []
        report: dict[str, Any] = {"format": FORMAT, "quick": options.quick, "machine": before, "versions": made_of}
        for group, each in itertools.groupby(wanted, key=itemgetter(0)):
            for _, spec in each:
                lines.append(measured(group, spec, bench))
                report |= {"seconds": round(monotonic() - begun, 1), "lines": [line.json() for line in lines]}
                kept(report, options.json)  # whoever ends the run has what was measured by then
            bench.end_group()
    print(text(lines))
    print(
        f"{before['cpus']} CPUs ({before['cpu']}), {before['busy_before']:.0%} busy before (load {before['load_before'][0]}), Linux {before['kernel']},"
        f" clock {before['clock']}, {before['file_system']}; {report['seconds']:.0f} s"
    )
    print("; ".join(f"{name} {which}" for name, which in made_of.items()))
    print(f"all figures: {options.json}")
    if options.plots:
        for path in write_plots(lines, options.plots):
            print(f"plot: {path}")
    return 1 if any(line.failure for line in lines) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
