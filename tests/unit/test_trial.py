"""The trial (.ci/trial.py) in a small project of its own: every part is run, and told in one table."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = """
[made]
lane = "makes"
run = ["echo made >made"]

[red]
lane = "tests"
needs = ["made"]
run = ["cat made && exit 3", "echo after >after"]

[tested]
lane = "tests"
needs = ["red"]
tests = { "." = "*" }

[narrower]
lane = "beside"
tests = { "." = "narrow*" }
"""
ONCE = """
import pathlib
def test_once():
    seen = pathlib.Path(__file__).with_name("seen")
    assert seen.exists() or seen.touch()
"""

Trial = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Runs the trial of a project with these parts and, beside two files of green tests, this one."""
    for path in (".ci/trial.py", ".ci/testruns.py", "tests/harness/testrun.py"):
        target = tmp_path / ("tests/testrun.py" if path.startswith("tests") else path)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / path, target)
    hooks = "from testrun import pytest_collectreport, pytest_runtest_logreport, pytest_sessionfinish\n"
    (tmp_path / "tests/conftest.py").write_text(hooks)
    (tmp_path / "tests/test_green.py").write_text("def test_green(): pass\n")
    (tmp_path / "tests/test_narrow.py").write_text("def test_narrow(): print('narrow')\n")
    (tmp_path / "Makefile").write_text(f"test-all:\n\t@{sys.executable} -m pytest -p no:cacheprovider -n 0\n")

    def run(*names: str, parts: str = PARTS, tests: str = "") -> "subprocess.CompletedProcess[str]":
        (tmp_path / ".ci/trial.toml").write_text(parts)
        (tmp_path / "tests/test_some.py").write_text(tests)
        command = [sys.executable, ".ci/trial.py", *names]
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)

    return run


def rows(said: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    """The table's first lines: what each part is."""
    table = said.stdout.rpartition("\n\npart ")[2].splitlines()[1:]
    return {line.split()[0]: line.split()[1] for line in table if ", " not in line}


def test_goes_on_after_a_red_part(trial: Trial, tmp_path: Path) -> None:
    """Every part is run, and each line of one that is red; the table has them all, and the exit code says that one was."""
    said = trial(tests=ONCE)
    assert (1, {"made": "green", "red": "red", "tested": "green", "narrower": "green"}) == (said.returncode, rows(said))
    assert "red, red: `cat made && exit 3` ended with 3" in said.stdout.splitlines()
    assert "flaky, tested: tests/test_some.py::test_once" in said.stdout.splitlines()
    assert "after\n" == (tmp_path / "after").read_text()
    assert "made" in (tmp_path / "build/trial/red.log").read_text()
    assert "2 passed" not in (tmp_path / "build/trial/narrower.log").read_text()


def test_one_by_name(trial: Trial, tmp_path: Path) -> None:
    """A part that is named is run with what it needs, and nothing else."""
    said = trial("red")
    assert (1, {"made": "green", "red": "red"}) == (said.returncode, rows(said))
    said = trial("narrower")
    assert (0, {"narrower": "green"}) == (said.returncode, rows(said)), said.stdout + said.stderr


@pytest.mark.parametrize(
    ("tests", "says"),
    [
        ("def test_wrong(): assert 0", "test_wrong failed twice"),
        ("import nothing_of_this_name", "did not run to their end"),
        (
            "import subprocess\ndef test_leaks(): subprocess.Popen(['sleep', '77'], start_new_session=True)",
            "left processes running: sleep 77",
        ),
    ],
    ids=["twice", "unreadable", "a process"],
)
def test_red(trial: Trial, tests: str, says: str) -> None:
    """A part is red by a test that fails twice, by one that cannot be run, and by a process that stays."""
    said = trial("tested", tests=tests)
    assert (1, "red") == (said.returncode, rows(said)["tested"])
    assert says in said.stdout.rpartition("red, tested: ")[2], said.stdout


@pytest.mark.parametrize(
    ("names", "parts", "says"),
    [
        (["keyclaok"], PARTS, "there is no part keyclaok: say one of made, red, tested, narrower"),
        ([], PARTS.replace('"narrow*"', '"nowhere"'), "narrower: no file is tests/./**/test_nowhere.py"),
        ([], PARTS.replace('"*"', '"green"'), "of no part: tests/test_some.py"),
        ([], PARTS.replace('needs = ["made"]', 'needs = ["tested"]'), "red needs tested, which is no part above it"),
    ],
    ids=["unknown", "no file", "no part", "below"],
)
def test_nothing_is_run(trial: Trial, names: list[str], parts: str, says: str) -> None:
    """What is not there, a file of no part and a need that never ends are said before anything is run."""
    said = trial(*names, parts=parts)
    assert (2, "", True) == (said.returncode, said.stdout, says in said.stderr), said.stderr


def test_this_trial() -> None:
    """Each file of this project's tests is of one part."""
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        import trial
    finally:
        sys.path.pop(0)
    parts = trial.read_parts(trial.PARTS.read_text())
    files = trial.files_of(parts.values())
    assert {*files} == {name for name, part in parts.items() if part.tests}
