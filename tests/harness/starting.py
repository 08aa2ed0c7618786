"""Agents that are started by hand, and what they say when they must not start."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.agent import COMMAND, AgentProcess, clean_environment

ENDS_SECONDS = 20


@contextmanager
def unstarted() -> Iterator[AgentProcess]:
    """A folder for an agent that the test starts itself."""
    own = AgentProcess(folder=Path(tempfile.mkdtemp(prefix="sojourn-test-", dir="/tmp")))
    (own.folder / "run").mkdir()
    yield own
    own.__exit__()
    shutil.rmtree(own.folder)


def start(agent: AgentProcess, *extra: str, before: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """Start what must fail to start; the exit status and the lines for people. Raise TimeoutExpired if it runs."""
    done = subprocess.run(
        [*before, *COMMAND, "agent", "run", *agent.places, *extra],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=ENDS_SECONDS,
        cwd=agent.folder,
        check=False,
    )
    assert "" == done.stdout
    assert "Traceback" not in done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith(("{", "next:"))]


def refused(agent: AgentProcess, *extra: str, before: tuple[str, ...] = ()) -> str:
    """Start what the agent must refuse with an error of at most three lines, and return that."""
    status, lines = start(agent, *extra, before=before)
    assert (1, True) == (status, 1 <= len(lines) <= 3)
    assert lines[0].startswith("error: ")
    return "\n".join(lines)
