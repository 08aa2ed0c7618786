"""A test that fails says which promise is broken: below its traceback, and all of them above the short summary.

Hooks of pytest, for conftest.py. The promise is the first paragraph of the test's docstring (`make promises`).
"""

import inspect
from collections.abc import Generator

import pytest

SECTION = "broken promise"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the promise into the report, which also comes from other processes whole."""
    report = yield
    said = inspect.getdoc(getattr(item, "obj", None)) if report.failed else None
    if said:
        report.sections.insert(0, (SECTION, " ".join(said.split("\n\n")[0].split())))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the promises that are broken, each once, with the first test that says so."""
    broken: dict[str, str] = {}
    for category in ("failed", "error"):
        for report in terminalreporter.stats.get(category, ()):
            for name, promise in getattr(report, "sections", ()):
                if name == SECTION:
                    broken.setdefault(promise, report.nodeid)
    if broken:
        terminalreporter.section("broken promises")
        for promise, test in broken.items():
            terminalreporter.line(promise, bold=True)
            terminalreporter.line(f"    {test}")
