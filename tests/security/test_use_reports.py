"""Reports of use by those who should not make them: a report spends a task's budget, and may end it."""

import os
from collections.abc import Iterator

import pytest
from harness.agent import AgentProcess
from harness.taskagent import TICKETS, make_agent
from harness.taskcalls import refusal, unary
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import validation_pb2 as pb

VALIDATE = "/sojourn.v1.Validation/ValidateToken"
REPORT = "/sojourn.v1.Validation/ReportUse"
SERVICES = f"""
[[services]]
resource = "{TICKETS}"
workloads = ["spiffe://example.org/tickets"]
"""


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """This user is /agent/triage; TICKETS is /tickets."""
    with make_agent(extra=SERVICES) as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running


def report(agent: AgentProcess, token: str) -> int:
    uses = [pb.TokenUse(token=token, action="ticket:read", calls=1_000_000)]
    return unary(agent.socket, REPORT, pb.ReportUseRequest(uses=uses), pb.ReportUseResponse).counted


def test_by_another_than_the_service(agent: AgentProcess) -> None:
    """Where the configuration says which workloads a service is, reports by others count for nothing: the task lives."""
    with SyncClient(agent.socket) as client, client.task("triage-ticket") as task:
        assert 0 == report(agent, task.token(TICKETS, ["ticket:read"]).token)
        assert task.token(TICKETS, ["ticket:read"])


def test_by_the_service(agent: AgentProcess) -> None:
    """Once a caller is one of them, its reports count."""
    with SyncClient(agent.socket) as client, client.task("triage-ticket") as task:
        token = task.token(TICKETS, ["ticket:read"]).token
        agent.register("/tickets", f"unix:uid:{os.getuid()}")
        assert 1 == report(agent, token)


def test_by_nobody_that_is_known(agent: AgentProcess) -> None:
    """Whoever finds a token and has no identity reports nothing and uses none up; whether it is good it may ask."""
    for entry in agent.json("entry", "list")["entries"]:
        agent.run("entry", "delete", entry["id"])
    request = pb.ReportUseRequest(uses=[pb.TokenUse(token="a.b.c", action="ticket:read", calls=1)])
    code, said = refusal(agent.socket, REPORT, request, pb.ReportUseResponse)
    assert ("PERMISSION_DENIED", "no identity issued") == (code, said)
    asked = {"token": "a.b.c", "audience": TICKETS}
    using = pb.ValidateTokenRequest(**asked, use=True)
    assert (code, said) == refusal(agent.socket, VALIDATE, using, pb.ValidateTokenResponse)
    looking = pb.ValidateTokenRequest(**asked)
    assert "malformed" == unary(agent.socket, VALIDATE, looking, pb.ValidateTokenResponse).code
