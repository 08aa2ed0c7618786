"""The shortest way through the whole agent."""

import os

from harness.agent import AgentProcess
from harness.callers import Caller


def test_a_registered_process_gets_what_its_entry_says(agent: AgentProcess) -> None:
    """A caller with a matching entry gets an X.509-SVID and a JWT-SVID of exactly that entry."""
    agent.register("/work", f"unix:uid:{os.getuid()}")
    with Caller(agent.socket) as caller:
        assert ["spiffe://example.org/work"] == [each["spiffe_id"] for each in caller.ask("x509")["svids"]]
        assert "spiffe://example.org/work" == caller.ask("jwt", audience="a")["spiffe_id"]


def test_an_unregistered_process_gets_nothing(agent: AgentProcess) -> None:
    """A caller without an entry is told that no identity is issued."""
    with Caller(agent.socket) as caller:
        assert "no_identity" == caller.ask("x509")["code"]
