"""The agent is killed at random moments while tasks begin, give tokens, are suspended and end: thirty times.

After each start: what was acknowledged is so, no ended task is alive, none is active before its holder has come back,
and versions have grown.
"""

import os
import random
import signal
import time
from collections.abc import Iterator

import pytest
from harness.agent import AgentProcess
from harness.taskagent import make_agent
from harness.taskkills import Known, Work, check

pytestmark = [pytest.mark.full, pytest.mark.forked]

KILLS = 10  # in each of three runs
LONGEST_RUN_SECONDS = 0.5


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with make_agent() as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kills(agent: AgentProcess, seed: int) -> None:
    """However often the agent is killed in the midst of work, nothing acknowledged is lost and nothing ended lives."""
    chance, known = random.Random(seed), Known()
    for _ in range(KILLS):
        work = Work(agent, known, random.Random(chance.random()))
        work.start()
        time.sleep(chance.random() * LONGEST_RUN_SECONDS)
        agent.stop(signal.SIGKILL)
        work.join(timeout=30)
        assert not work.is_alive()
        if work.failure is not None:
            raise work.failure
        agent.start()
        check(agent, known)
    agent.run("audit", "verify")
    assert [] == [line for line in agent.log_lines() if line["event"] in {"call_failed", "task_journal_damaged"}]
    assert known.ended
    assert known.dead
