"""journal_stream.py: what standard error says to systemd's journal."""

import json
import os
import socket
import subprocess
import sys

import pytest

LOGS = """
import structlog
from sojourn.runtime import logs
logs.configure("debug")
log = structlog.get_logger()
for method in ("debug", "info", "warning", "error", "critical"):
    getattr(log, method)("said", method=method)
"""
FAILS = """
from sojourn.cli.output import show_error
from sojourn.errors import InvalidConfig
show_error(InvalidConfig(["one", "two"]), as_json=False)
"""


def said(code: str, *, ours: bool) -> list[str]:
    """The lines that `code` writes to a standard error which is the journal's, or only looks so (`ours` false)."""
    reads, writes = socket.socketpair()
    with reads:
        with writes:
            status = os.fstat(writes.fileno())
            named = f"{status.st_dev}:{status.st_ino if ours else status.st_ino + 1}"
            environment = {**os.environ, "JOURNAL_STREAM": named}
            subprocess.run([sys.executable, "-c", code], stderr=writes, env=environment, check=True, timeout=60)
        return b"".join(iter(lambda: reads.recv(65536), b"")).decode().splitlines()


def test_lines_of_the_log() -> None:
    """Each line of the log begins with its priority, and is JSON beside that."""
    lines = said(LOGS, ours=True)
    assert ["<7>", "<6>", "<4>", "<3>", "<2>"] == [line[:3] for line in lines]
    assert ["debug", "info", "warning", "error", "critical"] == [json.loads(line[3:])["method"] for line in lines]


def test_another_stream() -> None:
    """A standard error that is not the journal's has no priorities, whatever the variable says."""
    assert all(json.loads(line)["event"] == "said" for line in said(LOGS, ours=False))


@pytest.mark.parametrize(("ours", "begin"), [(True, "<3>"), (False, "")])
def test_errors(ours: bool, begin: str) -> None:
    """Each line of an error by which a command ends has the priority of errors in the journal."""
    lines = said(FAILS, ours=ours)
    assert all(line.startswith((f"{begin}error:", f"{begin}next:")) for line in lines), lines
    assert len(lines) >= 2
