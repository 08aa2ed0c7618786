"""Changes Sojourn in many small ways, and sees which changes no test notices: `make mutate`.

Usage: mutate.py [--scratch DIR] [--children N] [--every N] [ROOM]. See README.md beside this.
"""

import argparse
import contextlib
import fnmatch
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import explained
import mutants
from mutants import Mutant
from rooms import ROOMS, Room

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SOURCE = Path("src/sojourn")  # where mutmut wants a package, in the scratch folder
ALSO = ("attestors", "proto", "docs", "deploy", ".ci", "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "target", ".hypothesis")
TEST_SECONDS = 10  # a mutant that hangs a test is killed by it then
ENOUGH = 0.9
NOTHING = "no.mutant.has.this.name"


def lay_out(scratch: Path, room: Room) -> None:
    """Copy what mutmut needs into `scratch`. What is there and the same stays, with what was found out about it."""
    for file in sorted((REPOSITORY / "agent/sojourn").rglob("*.py")):
        _copy_changed(file, scratch / SOURCE / file.relative_to(REPOSITORY / "agent/sojourn"))
    for name in ("tests", *ALSO):
        for place in (scratch / name, scratch / "mutants" / name):
            if place.is_dir():
                shutil.rmtree(place)
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, scratch / name, ignore=LEFT_OUT)
        else:
            shutil.copy2(REPOSITORY / name, scratch / name)
    options = {
        "source_paths": ["src"],
        "only_mutate": [f"{SOURCE}/{pattern}" for pattern in room.files],
        "also_copy": ALSO,
        "pytest_add_cli_args_test_selection": [f"tests/{path}" for path in room.tests],
        "pytest_add_cli_args": [
            "-pno:randomly",
            "-pno:xdist",
            "-x",
            "-q",
            f"--timeout={TEST_SECONDS}",
            "--hypothesis-seed=0",
        ],
        "timeout_multiplier": ["6"],
        "timeout_constant": ["3"],
    }
    written = (f"{name}=\n" + "".join(f"    {value}\n" for value in values) for name, values in options.items())
    (scratch / "setup.cfg").write_text("[mutmut]\n" + "".join(written))


def _copy_changed(source: Path, target: Path) -> None:
    text = source.read_bytes()
    if not target.exists() or target.read_bytes() != text:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text)


def mutmut(scratch: Path, *arguments: str, shown: bool = True) -> str:
    """Run it in `scratch`, and return what it says if that is not `shown`. It ends early at an interrupt.

    What the tests of a mutant that was stopped have left behind ends with it.
    """
    with subprocess.Popen(
        [Path(sys.executable).with_name("mutmut"), *arguments],
        cwd=scratch,
        env=os.environ | {"SOJOURN_TEST_QUICK": "1"},
        text=True,
        stdout=None if shown else subprocess.PIPE,
        stderr=None if shown else subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return said or ""


def mutated_files(scratch: Path, room: Room) -> Iterator[tuple[Path, str]]:
    """Each mutated file, with its module's name."""
    for file in sorted((scratch / "mutants" / SOURCE).rglob("*.py")):
        below = str(file.relative_to(scratch / "mutants" / SOURCE))
        if any(fnmatch.fnmatch(below, pattern) for pattern in room.files) and mutants.meta_of(file).exists():
            yield file, "sojourn." + below.removesuffix(".py").replace("/", ".")


def make(scratch: Path, room: Room, children: int, every: int) -> None:
    """Have mutmut make the mutants and run the tests without any, and choose what is run. Exit if a test fails."""
    said = mutmut(scratch, "run", "--max-children", str(children), NOTHING, shown=False)
    if "nothing matches" not in said:
        sys.exit(f"{said}\nno mutants could be made: see above")
    tests = _digest(scratch / "tests")
    seen = scratch / "tests-of-last-run"
    for file, module in mutated_files(scratch, room):
        if seen.exists() and seen.read_text() != tests:
            mutants.try_again(file, module)
        mutants.choose(file, module, every)
    seen.write_text(tests)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def report(found: Iterable[Mutant], reasons: explained.Reasons) -> bool:
    """Print how they fared; whether that is good enough, as far as they were run."""
    counts: Counter[str] = Counter()
    alive: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in found:
        known = reasons.explain(mutant)
        lives = mutant.fate in {"survived", "no tests"}
        counts["explained" if lives and known else mutant.fate] += 1
        if lives and not known:
            alive[mutant.function].append(mutant)
    for function, survivors in sorted(alive.items()):
        print(f"\n{function}: {len(survivors)}")
        for mutant in survivors:
            untested = "  (no test runs it)" if mutant.fate == "no tests" else ""
            print(f"    {mutant.change}{untested}")
    print()
    for fate in ("killed", "timeout", "survived", "no tests", "broken", "explained", "wording", "not run"):
        print(f"{fate:>10} {counts[fate]:6}")
    good, bad = counts["killed"] + counts["timeout"], counts["survived"] + counts["no tests"] + counts["broken"]
    score = good / (good + bad) if good + bad else 0.0
    print(f"\nscore {score:.1%}: killed and timed out, of these and what survived, had no test or broke")
    print("explained: equivalent, with the reason in explained.toml; wording: a message in other words, not run")
    stale = list(reasons.stale())
    for line in stale:
        print(f"explained.toml: {line}")
    return score >= ENOUGH and not stale


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("room", nargs="?", default="spiffe", choices=ROOMS)
    parser.add_argument("--scratch", type=Path, help="a folder that is kept: the next run goes on from it")
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1, help="how many mutants run at a time")
    parser.add_argument("--every", type=int, default=1, help="run one of so many mutants, always the same")
    parser.add_argument("--report", action="store_true", help="run none: say how those in the scratch folder fared")
    asked = parser.parse_args()
    room = ROOMS[asked.room]
    with tempfile.TemporaryDirectory(prefix="sojourn-mutation-") as temporary:
        scratch = asked.scratch.resolve() if asked.scratch else Path(temporary)
        if not asked.report:
            lay_out(scratch, room)
            make(scratch, room, asked.children, asked.every)
            try:
                mutmut(scratch, "run", "--max-children", str(asked.children))
            except KeyboardInterrupt:
                print("\ninterrupted")
        found = [mutant for file, module in mutated_files(scratch, room) for mutant in mutants.of_file(file, module)]
    sys.exit(not report(found, explained.read(asked.room)))


if __name__ == "__main__":
    main()
