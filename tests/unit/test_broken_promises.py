"""A failing test names the promise that is broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
CONFTEST = "from harness.brokenpromises import pytest_runtest_makereport, pytest_terminal_summary\n"
BROKEN = '''
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_sum(number):
    """One and one
    are two.

    Since Peano.
    """
    assert 3 == number + number

@pytest.fixture
def nothing():
    raise OSError

def test_ground(nothing):
    """There is ground."""

def test_kept():
    """This is kept."""

def test_silent():
    assert False
'''


@pytest.mark.parametrize("processes", [0, 2])
def test_named(tmp_path, processes):
    """A broken promise stands in words below each traceback, and once above the short summary, from any process."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(BROKEN)
    done = subprocess.run(
        # What lies beside the folder is other tests': `--confcutdir` keeps pytest from looking there.
        [
            *(sys.executable, "-m", "pytest", "-p", "xdist", "-n", str(processes), "-c", os.devnull),
            *("--rootdir", str(tmp_path), "--confcutdir", str(tmp_path), str(tmp_path)),
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(TESTS),
            "PYTEST_ADDOPTS": "",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    said = done.stdout
    assert "3 failed, 1 passed, 1 error" in said, said + done.stderr
    tracebacks, _, after = said.partition("= broken promises =")
    named, _, summary = after.partition("short test summary info")
    assert [2, 1, 0] == [
        tracebacks.count(each) for each in ("One and one are two.", "There is ground.", "This is kept.")
    ]
    assert [1, 1, 0] == [named.count(each) for each in ("One and one are two.", "There is ground.", "This is kept.")]
    assert "test_it.py::test_sum[1]" in named
    assert "FAILED" in summary
