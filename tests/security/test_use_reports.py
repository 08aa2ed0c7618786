"""Reports of use and of refusals by those who should not make them: the one spends a task's budget, and may end it, the
other says of a task what it has not done.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.taskagent import TICKETS, make_agent
from harness.taskcalls import refusal, unary
from sojourn import SyncClient
from sojourn._pb.envoy.service.auth.v3 import external_auth_pb2 as ea
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.limits import REFUSALS_PER_REPORT, SERVED_TARGET_MAX

pytestmark = pytest.mark.full

VALIDATE = "/sojourn.v1.Validation/ValidateToken"
REPORT = "/sojourn.v1.Validation/ReportUse"
REFUSALS = "/sojourn.v1.Validation/ReportRefusals"
SERVICES = f"""
[[services]]
resource = "{TICKETS}"
workloads = ["spiffe://example.org/tickets"]
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[AgentProcess]:
    """This user is /agent/triage and /tickets."""
    with make_agent(extra=SERVICES) as running:
        for path in ("/agent/triage", "/tickets"):
            running.register(path, f"unix:uid:{os.getuid()}")
        yield running


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


def check(agent: AgentProcess, token: str) -> int:
    """The status of what an Envoy of the caller's is answered."""
    asked = ea.CheckRequest()
    http = asked.attributes.request.http
    http.method, http.path, http.protocol = "GET", "/x", "HTTP/1.1"
    http.headers["authorization"] = f"Bearer {token}"
    said = {"sojourn.audience": TICKETS, "sojourn.action": "ticket:read", "sojourn.unchecked": "ticket"}
    asked.attributes.context_extensions.update(said)
    answer = unary(agent.socket, "/envoy.service.auth.v3.Authorization/Check", asked, ea.CheckResponse)
    return int(answer.denied_response.status.code or 200)


def test_by_another_s_envoy(agent: AgentProcess) -> None:
    """An Envoy's question and a use are the service's: those of another identity spend nothing, whatever token it holds."""
    with SyncClient(agent.socket) as client, client.task("triage-ticket") as task:
        token = task.token(TICKETS, ["ticket:read"]).token
        assert [503, 503] == [check(agent, token) for _ in range(2)]
        using = pb.ValidateTokenRequest(token=token, audience=TICKETS, action="ticket:read", use=True)
        code, said = refusal(agent.socket, VALIDATE, using, pb.ValidateTokenResponse)
        assert ("PERMISSION_DENIED", True) == (code, said.startswith("not a workload of the service"))
        assert 0 == agent.json("task", "show", task.id)["calls"]
        agent.register("/tickets", f"unix:uid:{os.getuid()}")
        assert 200 == check(agent, token)
        assert 1 == agent.json("task", "show", task.id)["calls"]


def refusals(token: str, audience: str = TICKETS, **said: Any) -> pb.ReportRefusalsRequest:
    served = pb.Served(action="ticket:read", method="GET", target="/tickets/43?key=s3cret", compared=["ticket"])
    refused = {"token": token, "code": "wrong_params", "request": served, "count": 1, **said}
    return pb.ReportRefusalsRequest(audience=audience, refusals=[pb.TokenRefusal(**refused)])


class TestRefusals:
    def test_refusals_told_by_another(self, agent: AgentProcess) -> None:
        """Where the configuration says which workloads a service is, others tell of no refusals there."""
        with SyncClient(agent.socket) as client, client.task("triage-ticket") as task:
            request = refusals(task.token(TICKETS, ["ticket:read"]).token)
            code, said = refusal(agent.socket, REFUSALS, request, pb.ReportRefusalsResponse)
            assert "PERMISSION_DENIED" == code
            assert "[[services]]" in said
            assert 0 == agent.json("task", "show", task.id)["refused"]

    def test_refusals_told_by_nobody(self, agent: AgentProcess) -> None:
        """Whoever has no identity tells of no refusals."""
        for entry in agent.json("entry", "list")["entries"]:
            agent.run("entry", "delete", entry["id"])
        code, _ = refusal(agent.socket, REFUSALS, refusals("a.b.c"), pb.ReportRefusalsResponse)
        assert "PERMISSION_DENIED" == code

    def test_refusals_told_by_the_service(self, serving: AgentProcess) -> None:
        """The service's are recorded with the task that the agent finds by the token's signature, escaped and cut."""
        with SyncClient(serving.socket) as client, client.task("triage-ticket") as task:
            request = refusals(task.token(TICKETS, ["ticket:read"]).token)
            request.refusals[0].request.target = "/\x1b[31m\n" + "x" * 10_000
            assert 1 == unary(serving.socket, REFUSALS, request, pb.ReportRefusalsResponse).named
            (told,) = serving.json("task", "show", task.id)["refusals"]
        assert told["target"].startswith("/%1B[31m%0Axxx")
        assert len(told["target"]) <= SERVED_TARGET_MAX
        assert "s3cret" not in serving.run("audit", "tail").stdout

    def test_of_tokens_that_are_none(self, serving: AgentProcess) -> None:
        """What is told of tokens that the agent did not sign names no task, and stands nowhere."""
        with SyncClient(serving.socket) as client, client.task("triage-ticket") as task:
            head, claims, _ = task.token(TICKETS, ["ticket:read"]).token.split(".")
            for text in (f"{head}.{claims}.AAAA", "x", "", "marked." * 3):
                assert 0 == unary(serving.socket, REFUSALS, refusals(text), pb.ReportRefusalsResponse).named
            assert 0 == serving.json("task", "show", task.id)["refused"]
        assert "marked" not in serving.run("audit", "tail", "-n", "200").stdout

    @pytest.mark.parametrize(
        "change",
        [
            {"audience": ""},
            {"audience": "x" * 3_000},
            {"count": 0},
            {"count": 1_000_001},
        ],
    )
    def test_what_is_no_report(self, serving: AgentProcess, change: dict[str, Any]) -> None:
        """A report without a service, or with counts that cannot be, is refused."""
        code, _ = refusal(serving.socket, REFUSALS, refusals("a.b.c", **change), pb.ReportRefusalsResponse)
        assert "INVALID_ARGUMENT" == code

    def test_too_many(self, serving: AgentProcess) -> None:
        """A report has no more refusals than fit one."""
        request = refusals("a.b.c")
        for _ in range(REFUSALS_PER_REPORT):
            request.refusals.append(request.refusals[0])
        code, _ = refusal(serving.socket, REFUSALS, request, pb.ReportRefusalsResponse)
        assert "INVALID_ARGUMENT" == code
