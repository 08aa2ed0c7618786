"""Run `make test` as the gate does: the same tree gives the same run, and a test that fails is tried again, alone.

A test that fails and is green alone is flaky: it is printed with its first failure, and is kept in build/flaky.jsonl.
Red are: a test that fails twice, more than three that fail, one whose file the change edits, a runner that ends in any
other way than with failed tests, and a process that the tests leave behind. tests/quarantine.toml takes tests out of
this run.
"""

import ctypes
import datetime as dt
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUARANTINE = ROOT / "tests/quarantine.toml"
FLAKY = ROOT / "build/flaky.jsonl"
ROWS_MAX = 20
AGAIN_MAX = 3
ENDED_WITH_FAILURES = 1  # of pytest's exit codes
CHANGE = dt.timedelta(hours=2)
LEAVING = 5.0  # seconds that processes have to end after the tests
_PR_SET_CHILD_SUBREAPER = 36
_ROW = {"id": str, "since": dt.date, "until": dt.date, "seen": str, "suspected": str}


class Red(Exception):
    """What holds this tree back, as a sentence."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A test that failed, and what it said first."""

    test: str
    when: str
    text: str


def quarantined(text: str, day: dt.date) -> list[str]:
    """The tests that tests/quarantine.toml, whose text this is, takes out on that day."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Red(f"tests/quarantine.toml: {error}") from None
    rows = tables.pop("test", [])
    if tables or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Red(f"tests/quarantine.toml: say [[test]] for each test, and nothing else: {', '.join(tables)}")
    if len(rows) > ROWS_MAX:
        raise Red(f"tests/quarantine.toml has {len(rows)} rows, of at most {ROWS_MAX}: mend some of them")
    for row in rows:
        name = row.get("id", "a row without id")
        if wrong := [key for key, kind in _ROW.items() if type(row.get(key)) is not kind or row[key] == ""]:
            raise Red(f"tests/quarantine.toml, {name}: say {', '.join(wrong)}")
        if row["until"] < day:
            raise Red(f"tests/quarantine.toml, {name}: was to be mended until {row['until']}")
    return [row["id"] for row in rows]


def failures(record: Mapping[str, object]) -> list[Failure]:
    """The tests to be tried again by the record of a run (tests/harness/testrun.py), each once."""
    if record["exit"] not in {0, ENDED_WITH_FAILURES}:
        raise Red(f"the tests did not run to their end: pytest's exit code was {record['exit']}")
    found: dict[str, Failure] = {}
    for each in record["failures"]:  # type: ignore[attr-defined]
        found.setdefault(each["test"], Failure(**each))
    if bool(found) != (record["exit"] == ENDED_WITH_FAILURES):
        raise Red(f"pytest's exit code was {record['exit']}, with {len(found)} failures")
    return [*found.values()]


def check_few(found: Sequence[Failure], edited: Sequence[str] | None) -> None:
    """Refuse to try again what no chance explains; `edited`: the files of the change, None where nobody knows them."""
    if unread := [each.test for each in found if each.when == "collect"]:
        raise Red(f"cannot be read: {', '.join(unread)}")
    if len(found) > AGAIN_MAX:
        raise Red(f"{len(found)} tests failed, of which at most {AGAIN_MAX} are tried again")
    for each in found:
        if edited is None:
            raise Red(f"{each.test} failed, and this clone does not tell which files the change edits")
        if each.test.partition("::")[0] in edited:
            raise Red(f"{each.test} failed, in a file that the change edits: such a test is never flaky")


def edited_files() -> list[str] | None:
    """The files of the change: of the commits that origin has not, or, where it has all, of those of two hours.

    None where there is no commit before them.
    """
    head, made = _git("log", "-1", "--format=%H %cI").split()
    base = _git("merge-base", "origin/main", "HEAD")
    if base in {"", head}:
        before = dt.datetime.fromisoformat(made) - CHANGE
        base = _git("rev-list", "-1", f"--before={before.isoformat()}", "HEAD")
    return _git("diff", "--name-only", base, head).splitlines() if base else None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


class Run:
    """One call of `make test` after another, with one seed."""

    def __init__(self, tree: str, scratch: Path) -> None:
        self._seed = int(tree[:8], 16)
        self._record = scratch / "record.json"

    def all_but(self, tests: Sequence[str]) -> list[Failure]:
        """Run the tests but these; return those that failed."""
        self._make(*(f"--deselect={each}" for each in tests))
        if not self._record.exists():
            raise Red("the tests did not run to their end: pytest left no record")
        return failures(json.loads(self._record.read_text()))

    def alone(self, test: str) -> tuple[bool, str]:
        """Run this test in a process of its own; return whether it was green, and what was printed."""
        done = self._make("--randomly-dont-reorganize", test, output=subprocess.PIPE, WORKERS="0")
        return done.returncode == 0, done.stdout

    def _make(self, *options: str, output: int | None = None, **values: str) -> "subprocess.CompletedProcess[str]":
        self._record.unlink(missing_ok=True)
        given = [*shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *options]
        given += [f"--randomly-seed={self._seed}", f"--hypothesis-seed={self._seed}"]
        environment = {**os.environ, "PYTEST_ADDOPTS": shlex.join(given), "SOJOURN_TEST_RECORD": str(self._record)}
        return subprocess.run(
            ["make", "--no-print-directory", "test", *(f"{name}={value}" for name, value in values.items())],
            cwd=ROOT, env=environment, stdout=output, text=True, check=False,
        )  # fmt: skip


def adopt_orphans() -> None:
    """Have processes below us whose parents end become our children."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def end_children() -> list[str]:
    """End what is still below us after the tests; return the command lines of what did not end by itself."""
    ends = time.monotonic() + LEAVING
    while (left := dict(_children())) and time.monotonic() < ends:
        time.sleep(0.1)
    told = [*left.values()]
    while left := dict(_children()):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    return told


def _children() -> Iterator[tuple[int, str]]:
    """Our children that run, each with its command line; those that have ended are reaped."""
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        if os.waitpid(int(pid), os.WNOHANG) == (0, 0):
            yield int(pid), Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def try_again(run: Run, found: Sequence[Failure]) -> str:
    """Try each once more; return what the last of these runs printed. Raise Red for what fails again."""
    printed = ""
    for each in found:
        green, printed = run.alone(each.test)
        if not green:
            print(printed)
            raise Red(f"{each.test} failed twice")
    FLAKY.parent.mkdir(exist_ok=True)
    with FLAKY.open("a", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(asdict(each))}\n" for each in found)
    for each in found:
        print(f"\nflaky: {each.test} failed ({each.when}), then was green alone. Its first failure:\n{each.text}")
    for each in found:
        print(f"flaky: {each.test}")
    return printed


def main() -> int:
    adopt_orphans()
    printed = ""
    try:
        made = dt.datetime.fromisoformat(_git("log", "-1", "--format=%cI"))
        out = quarantined(QUARANTINE.read_text(encoding="utf-8"), made.date())
        check_known(out)
        with tempfile.TemporaryDirectory() as scratch:
            run = Run(_git("rev-parse", "HEAD^{tree}"), Path(scratch))
            found = run.all_but(out)
            if left := end_children():
                raise Red(f"the tests left processes running: {'; '.join(left)}")
            if found:
                check_few(found, edited_files())
                printed = try_again(run, found)
    except Red as red:
        print(f"red: {red}", file=sys.stderr)
        return 1
    finally:
        end_children()
    print(printed, end="")
    return 0


def check_known(tests: Sequence[str]) -> None:
    """Refuse a row for a test that is not there."""
    if not tests:
        return
    listed = [ROOT / ".venv/bin/python", "-m", "pytest", "--collect-only", "-qq", *tests]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Red(f"tests/quarantine.toml names a test that is not there: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
