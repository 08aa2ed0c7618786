"""Run the trial: everything, with real parts, as root. It says whether the product is right.

`python3 .ci/trial.py [PART…]` runs all parts of .ci/trial.toml, or these and what they need. It goes on after a red
one, and prints one table at the end: part, green or red, seconds, flaky tests. Each log is build/trial/PART.log.
Exit code 1 says that a part was red, 2 that nothing was run.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from testruns import ROOT, Red, Run, adopt_orphans, check_all_ended, check_few, end_children

PARTS = ROOT / ".ci/trial.toml"
SAID = ROOT / "build/trial"
AGAIN_MAX = 20


class Unusable(Exception):
    """Why nothing can be run, as a sentence."""


@dataclass(frozen=True, slots=True)
class Part:
    """A row of .ci/trial.toml: lines of bash, then tests."""

    name: str
    lane: str
    needs: Sequence[str] = ()
    run: Sequence[str] = ()
    tests: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Ended:
    """How a part ended: why it is red, if it is, and which of its tests are flaky."""

    seconds: int = 0
    why: list[str] = field(default_factory=list)
    flaky: list[str] = field(default_factory=list)


def read_parts(text: str) -> dict[str, Part]:
    """The parts by their names, of which each stands below those that it needs. Raise Unusable."""
    parts: dict[str, Part] = {}
    for name, row in tomllib.loads(text).items():
        part = Part(name, **row)
        if unknown := [need for need in part.needs if need not in parts]:
            raise Unusable(f"{name} needs {', '.join(unknown)}, which is no part above it")
        parts[name] = part
    return parts


def chosen(parts: Mapping[str, Part], names: Sequence[str]) -> list[Part]:
    """All parts, or those that are named, with what they need, in the order of the file. Raise Unusable."""
    if unknown := [name for name in names if name not in parts]:
        raise Unusable(f"there is no part {', '.join(unknown)}: say one of {', '.join(parts)}")
    wanted = set(names or parts)
    for part in reversed(parts.values()):
        if part.name in wanted:
            wanted |= {*part.needs}
    return [part for part in parts.values() if part.name in wanted]


def files_of(parts: Iterable[Part]) -> dict[str, list[str]]:
    """The files with tests of each part, every file once. Raise Unusable for a name or a file that is of none."""
    owner: dict[Path, tuple[int, str]] = {}
    for part in parts:
        for folder, names in part.tests.items():
            for name in names.split():
                found = [*ROOT.glob(f"tests/{folder}/**/test_{name}.py")]
                if not found:
                    raise Unusable(f"{part.name}: no file is tests/{folder}/**/test_{name}.py")
                for path in found:
                    owner[path] = max(owner.get(path, (0, "")), (len(folder + name), part.name))
    if lost := sorted(str(path.relative_to(ROOT)) for path in {*ROOT.glob("tests/**/test_*.py")} - {*owner}):
        raise Unusable(f"of no part: {', '.join(lost)}")
    files: dict[str, list[str]] = {}
    for path, (_, name) in sorted(owner.items()):
        files.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return files


def do(part: Part, files: Sequence[str]) -> Ended:
    """Run a part in this process: a line that fails is no reason not to run the next one."""
    ended = Ended()
    for line in part.run:
        print(f"\n== {line}", flush=True)
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], cwd=ROOT, check=False)
        if done.returncode:
            ended.why.append(f"`{line}` ended with {done.returncode}")
    try:
        if files:
            with tempfile.TemporaryDirectory() as scratch:
                test(Path(scratch), files, ended)
        check_all_ended()
    except Red as red:
        ended.why.append(str(red))
    return ended


def test(scratch: Path, files: Sequence[str], ended: Ended) -> None:
    """Run these tests with a seed of chance, and what fails once more. Raise Red."""
    run = Run("test-all", secrets.randbits(32), scratch)
    found = run.all_of("--durations=30", "--durations-min=8", *files)
    check_few(found, AGAIN_MAX)
    again = run.again(found)
    ended.flaky += [each.test for each in again.flaky]
    ended.why += [f"{each.test} failed twice" for each in again.red]


class Trial:
    """The parts as processes, each lane in a thread."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._ended: dict[str, Ended] = {}
        self._parts = parts
        self._over = {part.name: threading.Event() for part in parts}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._began = time.monotonic()

    def run(self) -> dict[str, Ended]:
        """Run them all; return how each ended, in the order of the file."""
        SAID.mkdir(parents=True, exist_ok=True)
        lanes = [
            threading.Thread(target=self._lane, args=(lane,), daemon=True)
            for lane in {part.lane for part in self._parts}
        ]
        for thread in lanes:
            thread.start()
        for thread in lanes:
            thread.join()
        return {part.name: self._ended[part.name] for part in self._parts}

    def stop(self) -> None:
        """End the parts that run, and what they started."""
        for process in [*self._running]:
            process.terminate()
        for process in [*self._running]:
            process.wait()

    def _lane(self, lane: str) -> None:
        for part in self._parts:
            if part.lane == lane:
                for need in part.needs:
                    self._over[need].wait()
                self._ended[part.name] = self._one(part)
                self._over[part.name].set()

    def _one(self, part: Part) -> Ended:
        log, told = SAID / f"{part.name}.log", SAID / f"{part.name}.json"
        told.unlink(missing_ok=True)
        self._say(f"{part.name} begins")
        began = time.monotonic()
        with log.open("wb") as file:
            command = [sys.executable, __file__, "--one", part.name]
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
            self._running.add(process)
            code = process.wait()
            self._running.discard(process)
        ended = Ended(**json.loads(told.read_text())) if told.exists() else Ended(why=[f"it ended with {code}"])
        ended.seconds = round(time.monotonic() - began)
        self._say(f"{part.name} is {f'red, see {log.relative_to(ROOT)}' if ended.why else 'green'}")
        return ended

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.0f} s  {what}", flush=True)


def table(ended: Mapping[str, Ended]) -> str:
    """How the parts ended, a line each, and a line for each flaky test and each reason to be red."""
    lines = [f"{'part':16} {'':5} {'seconds':>7}  flaky"]
    for name, each in ended.items():
        lines.append(f"{name:16} {'red' if each.why else 'green':5} {each.seconds:7}  {len(each.flaky) or ''}".rstrip())
    for name, each in ended.items():
        lines += [f"flaky, {name}: {test}" for test in each.flaky]
    for name, each in ended.items():
        lines += [f"red, {name}: {why}" for why in each.why]
    return "\n".join(lines)


def one(part: Part, files: Sequence[str]) -> None:
    """Run this part for a trial that is another process, and leave it nothing that runs."""
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        ended = do(part, files)
    finally:
        end_children()
    (SAID / f"{part.name}.json").write_text(json.dumps(asdict(ended)))


def main(names: Sequence[str]) -> int:
    os.environ["CI"] = "1"
    os.environ.setdefault("SOJOURN_TEST_TRIAL", secrets.token_hex(8))  # whose parts share what they build
    os.environ.setdefault("PYTEST_XDIST_AUTO_NUM_WORKERS", str((os.cpu_count() or 1) * 5 // 2))  # many tests wait
    try:
        parts = read_parts(PARTS.read_text(encoding="utf-8"))
        files = files_of(parts.values())
        if names[:1] == ["--one"]:
            one(parts[names[1]], files.get(names[1], []))
            return 0
        trial = Trial(chosen(parts, names))
    except Unusable as error:
        print(f"trial: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        ended = trial.run()
    finally:
        trial.stop()
    print(f"\n{table(ended)}")
    return 1 if any(each.why for each in ended.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
