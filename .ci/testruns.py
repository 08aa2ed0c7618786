"""Runs of the tests by `make`, for gate and trial: each test that fails is tried again, alone, with the same seed.

A test that fails, and is green alone, is flaky: its first failure is printed, and is kept in build/flaky.jsonl.
"""

import ctypes
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAKY = ROOT / "build/flaky.jsonl"
ENDED_WITH_FAILURES = 1  # of pytest's exit codes
LEAVING = 5.0  # seconds that processes have to end after the tests
_PR_SET_CHILD_SUBREAPER = 36


class Red(Exception):
    """Why a run is red, as a sentence."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A test that failed, and what it said first."""

    test: str
    when: str
    text: str


@dataclass(frozen=True, slots=True)
class Again:
    """Failed tests that were tried again: those green then, those red again, and what the last one printed."""

    flaky: Sequence[Failure]
    red: Sequence[Failure]
    printed: str


class Run:
    """One call of `make TARGET` after another, with one seed of 32 bits for the tests' order and their properties."""

    def __init__(self, target: str, seed: int, scratch: Path) -> None:
        self._target = target
        self._seed = seed
        self._record = scratch / "record.json"

    def all_of(self, *options: str) -> list[Failure]:
        """Run the tests with these options of pytest; return those that failed. Raise Red for no orderly end."""
        self._make(*options)
        if not self._record.exists():
            raise Red("the tests did not run to their end: pytest left no record")
        return failures(json.loads(self._record.read_text()))

    def again(self, found: Sequence[Failure]) -> Again:
        """Try each once more, in a process of its own; print and keep what is flaky."""
        flaky: list[Failure] = []
        red: list[Failure] = []
        printed = ""
        for each in found:
            done = self._make("--randomly-dont-reorganize", each.test, output=subprocess.PIPE, WORKERS="0")
            printed = done.stdout
            if done.returncode:
                print(printed)
                red.append(each)
            else:
                flaky.append(each)
        _keep(flaky)
        return Again(flaky, red, printed)

    def _make(self, *options: str, output: int | None = None, **values: str) -> "subprocess.CompletedProcess[str]":
        self._record.unlink(missing_ok=True)
        given = [*shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *options]
        given += [f"--randomly-seed={self._seed}", f"--hypothesis-seed={self._seed}"]
        environment = {**os.environ, "PYTEST_ADDOPTS": shlex.join(given), "SOJOURN_TEST_RECORD": str(self._record)}
        return subprocess.run(
            ["make", "--no-print-directory", self._target, *(f"{name}={value}" for name, value in values.items())],
            cwd=ROOT, env=environment, stdout=output, text=True, check=False,
        )  # fmt: skip


def failures(record: Mapping[str, object]) -> list[Failure]:
    """The tests that failed by a run's record (tests/harness/testrun.py), each once. Raise Red for no orderly end."""
    if record["exit"] not in {0, ENDED_WITH_FAILURES}:
        raise Red(f"the tests did not run to their end: pytest's exit code was {record['exit']}")
    found: dict[str, Failure] = {}
    for each in record["failures"]:  # type: ignore[attr-defined]
        found.setdefault(each["test"], Failure(**each))
    if bool(found) != (record["exit"] == ENDED_WITH_FAILURES):
        raise Red(f"pytest's exit code was {record['exit']}, with {len(found)} failures")
    return [*found.values()]


def check_few(found: Sequence[Failure], most: int) -> None:
    """Refuse to try again what no chance explains: more than `most`, and a file that cannot be read."""
    if unread := [each.test for each in found if each.when == "collect"]:
        raise Red(f"cannot be read: {', '.join(unread)}")
    if len(found) > most:
        raise Red(f"{len(found)} tests failed, of which at most {most} are tried again")


def adopt_orphans() -> None:
    """Have processes below us whose parents end become our children."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def check_all_ended() -> None:
    """End what is still below us after the tests. Raise Red with the command lines of what did not end by itself."""
    ends = time.monotonic() + LEAVING
    while (left := dict(_children())) and time.monotonic() < ends:
        time.sleep(0.1)
    end_children()
    if left:
        raise Red(f"the tests left processes running: {'; '.join(left.values())}")


def end_children() -> None:
    """Kill what is below us until nothing is."""
    while left := dict(_children()):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _children() -> Iterator[tuple[int, str]]:
    """Our children that run, each with its command line; those that have ended are reaped."""
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        if os.waitpid(int(pid), os.WNOHANG) == (0, 0):
            yield int(pid), Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _keep(flaky: Sequence[Failure]) -> None:
    FLAKY.parent.mkdir(exist_ok=True)
    with FLAKY.open("a", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(asdict(each))}\n" for each in flaky)
    for each in flaky:
        print(f"\nflaky: {each.test} failed ({each.when}), then was green alone. Its first failure:\n{each.text}")
    for each in flaky:
        print(f"flaky: {each.test}")
