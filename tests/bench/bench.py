"""Measures what exists: `make bench`.

Usage: bench.py [--quick] [--json FILE] [--line NUMBER …]. Prints a table; progress goes to standard error. No figure
fails the run. A line that could not be measured says why, the others go on, and the exit status is 1. To compare with a
running Keycloak, name its folder in SOJOURN_BENCH_KEYCLOAK (tokenlines.py says what must lie there).
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attestlines import ATTEST_LINES
from factlines import FACT_LINES
from figures import Figure, Line, table
from ground import FULL, QUICK, Bench
from lines import LINES
from providerlines import PROVIDER_LINES
from tokenlines import TOKEN_LINES


def measured(number: int, title: str, measure: Callable[[Bench], Iterator[Figure | str]], bench: Bench) -> Line:
    """One line, with what it gave before it failed, if it did."""
    print(f"bench: {number}. {title} ...", file=sys.stderr, flush=True)
    begun = monotonic()
    found: list[Figure | str] = []
    failure = ""
    try:
        found.extend(measure(bench))
    except Exception as error:
        failure = reason(error)
        print(f"bench: {number}. failed: {failure}", file=sys.stderr, flush=True)
    figures = tuple(each for each in found if isinstance(each, Figure))
    notes = tuple(each for each in found if isinstance(each, str))
    return Line(number, title, figures, failure, monotonic() - begun, notes)


def reason(error: Exception) -> str:
    """One sentence."""
    said = str(error)
    if isinstance(error, subprocess.CalledProcessError):
        said = f"{said} {error.stderr.decode(errors='replace')}"
    return " ".join(f"{type(error).__name__}: {said}".split())[:300]


def machine() -> dict[str, object]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def terminated(*_: object) -> None:
    raise SystemExit(143)  # so that all that was started is ended on the way out


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the agent, the SDK and the command.")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: under 20 s")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there too")
    parser.add_argument("--line", metavar="NUMBER", type=int, action="append", help="this line only; may be repeated")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, terminated)
    begun, before = monotonic(), machine()
    with Bench(QUICK if options.quick else FULL) as bench:
        lines = [
            measured(*line, bench)
            for line in (*LINES, *FACT_LINES, *TOKEN_LINES, *PROVIDER_LINES, *ATTEST_LINES)
            if not options.line or line[0] in options.line
        ]
    print(table(lines))
    print(
        f"{before['cpus']} CPUs, load {before['load']} before, Python {before['python']}, Linux {before['kernel']};"
        f" {monotonic() - begun:.0f} s"
    )
    if options.json:
        report = {"quick": options.quick, "machine": before, "lines": [line.json() for line in lines]}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(line.failure for line in lines) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
