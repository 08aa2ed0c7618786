"""Programs that are started before the agent is."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sojourn
from harness.agent import AgentProcess
from harness.taskagent import TRIAGE, make_agent
from sojourn.errors import NoIdentity, Unreachable

START_SECONDS = 60.0  # a busy machine may take long to start an agent


def started_later(agent: AgentProcess, program: Callable[[], str]) -> str:
    """What a program says that begins when no agent is there; one is started then."""
    said: list[str] = []
    waiting = threading.Thread(target=lambda: said.append(program()))
    waiting.start()
    with agent as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        waiting.join(START_SECONDS)
    waiting.join(START_SECONDS)
    return said[0]


def test_a_program_that_is_first() -> None:
    """A program that is started first has its identity once the agent is there, with `wait_for_agent`."""
    agent = make_agent()

    def program() -> str:
        with sojourn.SyncClient(agent.socket, wait_for_agent=START_SECONDS) as client:
            while True:
                try:
                    return str(client.fetch_jwt_svid("https://any.example").spiffe_id)
                except NoIdentity:  # the agent is there, and the entry is not yet
                    continue

    assert TRIAGE == started_later(agent, program)


def test_no_agent_comes(tmp_path: Path) -> None:
    """Where no agent comes the error names the socket, as without waiting."""
    nowhere = str(tmp_path / "none.sock")
    with pytest.raises(Unreachable, match=r"none\.sock"), sojourn.SyncClient(nowhere, wait_for_agent=0.2):
        pass
    with (
        pytest.raises(Unreachable, match=r"none\.sock"),
        sojourn.task("triage-ticket", socket=nowhere, wait_for_agent=0.2),
    ):
        pass
