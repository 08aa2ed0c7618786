"""Writes down how a run of tests ended, for whoever tries its failures again: hooks of pytest, for conftest.py.

`SOJOURN_TEST_RECORD` names the file. It is JSON: `exit` (pytest's own code), and `failures`, each with the test's id, what of
it failed (`setup`, `call`, `teardown`, or `collect`) and the traceback.
"""

import json
import os
from pathlib import Path

import pytest

RECORD = "SOJOURN_TEST_RECORD"
_FAILURES: list[dict[str, str]] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep each failure; with workers this is called in their controller too, for the tests of all."""
    if report.failed:
        _FAILURES.append({"test": report.nodeid, "when": report.when or "call", "text": report.longreprtext})


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Keep what could not be read: nobody can try that again."""
    if report.failed:
        _FAILURES.append({"test": report.nodeid, "when": "collect", "text": report.longreprtext})


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the file, whole or not at all."""
    wanted = os.environ.get(RECORD)
    if not wanted or os.environ.get("PYTEST_XDIST_WORKER"):
        return
    written = Path(f"{wanted}.new")
    written.write_text(json.dumps({"exit": int(exitstatus), "failures": _FAILURES}))
    written.rename(wanted)
