"""A caller's W3C trace: over gRPC and HTTP it reaches log, journal and the provider outside, and malformed ones nobody."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.authserver import AuthServer
from harness.exchanges import GRANT, JWT, http
from harness.looking import until
from harness.outside import ORDERS, working_agent
from harness.raw import HEADER, Wire, refusal
from harness.taskagent import ISSUER
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb

TASKS = "/sojourn.v1.Tasks/"


class Trace:
    """One that nobody had before."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(16)
        self.value = f"00-{self.id}-{secrets.token_hex(8)}-01"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (*HEADER, ("traceparent", self.value))


@pytest.fixture(scope="module")
def agent(corp: AuthServer, other: AuthServer) -> Iterator[AgentProcess]:
    with working_agent(corp, other) as running:
        yield running


def begin(wire: Wire, trace: Trace, **fields: Any) -> pb.Task:
    return wire.unary(
        TASKS + "BeginTask", pb.BeginTaskRequest(type="outside", **fields), pb.Task, metadata=trace.metadata
    )


def events_of(agent: AgentProcess, trace_id: str) -> list[str]:
    """What stands in the journal under a trace."""
    records = agent.json("audit", "tail", "-n", "200")["records"]
    return [each["event"] for each in records if each["fields"].get("trace_id") == trace_id]


def traces_at(server: AuthServer, since: int) -> list[str | None]:
    return [call.headers.get("traceparent") for call in server.calls("token")[since:]]


class TestGrpc:
    def test_the_journal_and_the_provider(self, agent: AgentProcess, corp: AuthServer) -> None:
        """What a call begins and gets is recorded under its trace, and the provider is asked under the same one."""
        beginning, getting = Trace(), Trace()
        with Wire(agent.socket) as wire:
            task = begin(wire, beginning)
            before = len(corp.calls("token"))
            asked = pb.GetTokenRequest(task_id=task.id, resource=ORDERS)
            wire.unary(TASKS + "GetToken", asked, pb.GetTokenResponse, metadata=getting.metadata)
            assert [getting.value] == traces_at(corp, before)
            until(lambda: "task_begun" in events_of(agent, beginning.id), "it is in the journal")
            assert "external_credential_issued" in events_of(agent, getting.id)
            assert "task_begun" not in events_of(agent, getting.id)
            wire.unary(TASKS + "CompleteTask", pb.CompleteTaskRequest(task_id=task.id), pb.Task)
        until(
            lambda: "task_ended" in [r["event"] for r in agent.json("audit", "tail", "-n", "20")["records"]], "it ended"
        )
        assert "task_ended" not in events_of(agent, beginning.id)

    def test_a_refusal(self, agent: AgentProcess) -> None:
        """A refusal is logged and recorded under the trace of the call that was refused."""
        trace = Trace()
        with Wire(agent.socket) as wire:
            assert (
                "NOT_FOUND"
                == refusal(
                    lambda: wire.unary(
                        TASKS + "ShowTask", pb.ShowTaskRequest(task_id="x"), pb.Task, metadata=trace.metadata
                    )
                )[0]
            )
        line = until(lambda: next((line for line in agent.log_lines() if line.get("trace_id") == trace.id), None))
        assert ("call_refused", "sojourn.v1.Tasks/ShowTask") == (line["event"], line["method"])

    @pytest.mark.parametrize("value", ["00-xyz", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "", "a" * 2000])
    def test_what_is_malformed_is_ignored(self, agent: AgentProcess, corp: AuthServer, value: str) -> None:
        """A header that is no trace is no error, and is passed on to nobody."""
        with Wire(agent.socket) as wire:
            wrong = Trace()
            wrong.value = value
            task = begin(wire, wrong)
            before = len(corp.calls("token"))
            asked = pb.GetTokenRequest(task_id=task.id, resource=ORDERS)
            wire.unary(TASKS + "GetToken", asked, pb.GetTokenResponse, metadata=wrong.metadata)
            assert [None] == traces_at(corp, before)
            wire.unary(TASKS + "CompleteTask", pb.CompleteTaskRequest(task_id=task.id), pb.Task)
        assert [] == [line for line in agent.log_lines() if line["event"] in {"call_failed", "http_failed"}]


class TestHttp:
    def test_the_token_endpoint(self, agent: AgentProcess, corp: AuthServer) -> None:
        """A token request's trace is that of the journal's records, and of the provider that it leads to."""
        trace = Trace()
        with SyncClient(agent.socket) as client:
            svid = client.fetch_jwt_svid(ISSUER).token
        form = {"grant_type": GRANT, "subject_token": svid, "subject_token_type": JWT, "audience": ORDERS}
        before = len(corp.calls("token"))
        with http(agent.socket) as opened:
            answer = opened.post("/token", data=form, headers={"traceparent": trace.value})
        assert 200 == answer.status_code, answer.text
        assert [trace.value] == traces_at(corp, before)
        until(lambda: "external_credential_issued" in events_of(agent, trace.id), "it is in the journal")

    def test_a_refusal(self, agent: AgentProcess) -> None:
        """A refused request is logged under its trace; two headers are none."""
        trace, doubled = Trace(), Trace()
        with http(agent.socket) as opened:
            for headers in ([("traceparent", trace.value)], [("traceparent", doubled.value)] * 2):
                assert 400 == opened.post("/token", data={"grant_type": "none"}, headers=headers).status_code
        until(lambda: [line for line in agent.log_lines() if line.get("trace_id") == trace.id], "it is logged")
        assert [] == [line for line in agent.log_lines() if line.get("trace_id") == doubled.id]
