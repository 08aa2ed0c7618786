"""The gate's run of the tests (.ci/gate_tests.py), in a small project of its own: chance is told from fault."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = f"test:\n\t@{sys.executable} -m pytest -p no:cacheprovider -n 0\n"
CONFTEST = "from testrun import pytest_collectreport, pytest_runtest_logreport, pytest_sessionfinish\n"
GREEN = "def test_green(): pass\n"
ONCE = """
import pathlib
def test_once():
    seen = pathlib.Path(__file__).with_name("seen")
    assert seen.exists() or seen.touch()
"""
QUARANTINE = '[[test]]\nid = "{}"\nsince = 2026-01-01\nuntil = {}\nseen = "{}"\nsuspected = "a clock"\n'


class Project:
    """A project whose tests the gate runs; what was committed first is old, and each later commit is of the change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for path in (".ci/gate_tests.py", ".ci/testruns.py", "tests/harness/testrun.py"):
            target = folder / ("tests/testrun.py" if path.startswith("tests") else path)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / path, target)
        (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
        (folder / "Makefile").write_text(MAKEFILE)
        (folder / ".gitignore").write_text("*\n!tests/\n!tests/test_*\n")
        self.write("tests/quarantine.toml", "")
        self.write("tests/conftest.py", CONFTEST)
        self.write("tests/test_green.py", GREEN)
        self._git("init", "-q")

    def write(self, path: str, text: str) -> None:
        (self.folder / path).write_text(text)

    def commit(self, day: str) -> None:
        self._git("add", ".")
        self._git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "a", at=day)

    def gate(self) -> "subprocess.CompletedProcess[str]":
        """What the gate says, of the old tests where nothing was committed since."""
        self.commit("2026-02-02T00:00:00Z")
        wanted = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        command = [sys.executable, ".ci/gate_tests.py"]
        return subprocess.run(command, cwd=self.folder, env=wanted, capture_output=True, text=True, timeout=100)

    def flaky(self) -> list[str]:
        path = self.folder / "build/flaky.jsonl"
        return [json.loads(line)["test"] for line in path.read_text().splitlines()] if path.exists() else []

    def _git(self, *arguments: str, at: str = "") -> None:
        environment = {**os.environ, "GIT_AUTHOR_DATE": at, "GIT_COMMITTER_DATE": at} if at else None
        subprocess.run(["git", *arguments], cwd=self.folder, env=environment, check=True)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def old(project: Project, tests: str) -> None:
    """Have these tests be there since before the change."""
    project.write("tests/test_old.py", tests)
    project.commit("2026-02-01T00:00:00Z")


def test_a_test_that_fails_once_is_flaky(project: Project) -> None:
    """A test that fails, and is green alone with the same seed, is told by name with its first failure, and is not red."""
    old(project, ONCE)
    said = project.gate()
    assert 0 == said.returncode, said.stdout + said.stderr
    assert "flaky: tests/test_old.py::test_once\n" in said.stdout
    assert "assert (False or None)" in said.stdout.split("flaky: ")[1]
    assert "1 passed" in said.stdout.splitlines()[-1]
    assert ["tests/test_old.py::test_once"] == project.flaky()


def test_a_file_of_the_change_is_never_flaky(project: Project) -> None:
    """A test that fails once in a file that the change edits is red, and so is one of a clone without its past."""
    old(project, GREEN)
    project.write("tests/test_old.py", ONCE)
    said = project.gate()
    assert (1, "in a file that the change edits" in said.stderr) == (said.returncode, True)
    assert [] == project.flaky()


def test_a_clone_without_a_past(project: Project) -> None:
    """Where nobody knows what the change edits, no failure is tried again."""
    project.write("tests/test_old.py", ONCE)
    said = project.gate()
    assert (1, "does not tell which files the change edits" in said.stderr) == (said.returncode, True)


@pytest.mark.parametrize(
    ("tests", "says"),
    [
        ("def test_wrong(): assert 1 == 2", "failed twice: tests/test_old.py::test_wrong"),
        ("import pytest\n@pytest.mark.parametrize('n', range(4))\ndef test_wrong(n): assert 0", "4 tests failed"),
        ("import nothing_of_this_name", "did not run to their end"),
        ("import os\ndef test_dies(): os._exit(0)", "left no record"),
        ("import os\ndef test_kills(): os.kill(os.getpid(), 15)", "left no record"),
        (
            "import subprocess\ndef test_leaks(): subprocess.Popen(['sleep', '77'], start_new_session=True)",
            "left processes running: sleep 77",
        ),
    ],
    ids=["twice", "many", "unreadable", "no end", "killed", "a process"],
)
def test_red(project: Project, tests: str, says: str) -> None:
    """What no chance explains is red: a second failure, many, no end of the run, and a process that stays."""
    old(project, tests)
    said = project.gate()
    assert (1, True) == (said.returncode, says in said.stderr), said.stdout + said.stderr
    assert [] == project.flaky()


def test_green(project: Project) -> None:
    """A run without a failure ends with the runner's own line."""
    project.commit("2026-02-01T00:00:00Z")
    said = project.gate()
    assert (0, True) == (said.returncode, "1 passed" in said.stdout.splitlines()[-1]), said.stderr


def test_quarantine(project: Project) -> None:
    """A test in quarantine is left out."""
    old(project, "def test_wrong(): assert 1 == 2")
    project.write("tests/quarantine.toml", QUARANTINE.format("tests/test_old.py::test_wrong", "2026-03-01", "a"))
    said = project.gate()
    assert (0, True) == (said.returncode, "1 deselected" in said.stdout), said.stdout + said.stderr


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (QUARANTINE.format("tests/test_green.py::test_away", "2026-03-01", "a"), "names a test that is not there"),
        (QUARANTINE.format("tests/test_green.py::test_green", "2026-03-01", ""), "say seen"),
        (QUARANTINE.format("tests/test_green.py::test_green", "2026-01-31", "a"), "was to be mended until 2026-01-31"),
        (21 * QUARANTINE.format("tests/test_green.py::test_green", "2026-03-01", "a"), "has 21 rows, of at most 20"),
        ("[[test]]\n", "a row without id: say id, since, until, seen, suspected"),
        ("[[tests]]\n", "say [[test]]"),
        ("test", "tests/quarantine.toml"),
    ],
    ids=["unknown", "no reason", "late", "many", "empty", "mistyped", "no TOML"],
)
def test_quarantine_refused(project: Project, rows: str, says: str) -> None:
    """A row for no test, without its reason or past its day is red, and so are more than twenty."""
    project.write("tests/quarantine.toml", rows)
    said = project.gate()
    assert (1, True) == (said.returncode, says in said.stderr), said.stdout + said.stderr
