"""Fixtures of the integration tests: a real agent, real callers, and a look at what was left open."""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import ROOT, AgentProcess
from harness.authserver import AuthServer
from harness.borrowed import wire_of
from harness.callers import Caller
from harness.clients import built
from harness.peopleplace import People, people_place
from harness.raw import Admin, Wire
from harness.taskagent import ISSUER, TICKETS, shared_agent
from harness.taskcalls import Feed
from sojourn import SyncClient

# What `make test-kubernetes` runs, which builds a kubelet first: no part of the other runs.
collect_ignore = (
    [] if os.environ.get("SOJOURN_TEST_KUBERNETES") else ["test_real_kubernetes.py", "test_real_kubernetes_node.py"]
)
UIDS = itertools.count(4301)


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """A running agent on the quickstart sample. After the test it must have closed what it opened for callers."""
    with AgentProcess() as running:
        before = running.open_files()
        yield running
        if running.process is not None and running.process.poll() is None:
            left_behind = wait_for_quiet(running)
            assert left_behind == ([], 0), f"streams or tasks outlive their callers: {left_behind}"
            before.await_few(12)  # the database's and gRPC's own, which come with first use
            failed = [line for line in running.log_lines() if line["event"] in {"call_failed", "http_failed"}]
            assert [] == failed


@pytest.fixture(scope="module")
def admin(agent: AgentProcess) -> Iterator[Admin]:
    """The admin socket of the agent that a module's tests share."""
    with Admin(agent.admin_socket) as admin:
        yield admin


@pytest.fixture(scope="module")
def wire(agent: AgentProcess) -> Iterator[Wire]:
    """Calls of this user to the agent that a module's tests share."""
    with Wire(agent.socket) as wire:
        yield wire


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    """An agent with task types that a module's tests share."""
    with shared_agent() as agent:
        yield agent


@pytest.fixture(scope="module")
def people_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """An issuer of people, an agent and a guarded service that a module's tests share."""
    with people_place(tmp_path_factory.mktemp("people")) as running:
        yield running


@pytest.fixture
def people(people_running: People, monkeypatch: pytest.MonkeyPatch) -> People:
    """The same, whose agent programs find by themselves."""
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{people_running.agent.socket}")
    return people_running


@pytest.fixture(scope="module")
def corp() -> Iterator[AuthServer]:
    """A provider outside that a module's tests share."""
    with AuthServer() as server:
        yield server


@pytest.fixture(scope="module")
def other() -> Iterator[AuthServer]:
    """Another provider outside."""
    with AuthServer() as server:
        yield server


@pytest.fixture(scope="module")
def service(shared: AgentProcess) -> Iterator[SyncClient]:
    """A service that asks the shared agent about tokens."""
    with SyncClient(shared.socket) as client:
        yield client


@pytest.fixture(scope="module")
def subject(service: SyncClient) -> str:
    """This process's own JWT-SVID for the token endpoint."""
    return service.fetch_jwt_svid(ISSUER).token


@pytest.fixture
def feed(shared: AgentProcess) -> Iterator[Feed]:
    """A service that listens for tasks at the ticket system; its snapshot has been taken."""
    with Feed(shared.socket, [TICKETS]) as opened:
        opened.hear("snapshot")
        yield opened


@pytest.fixture
def holder(shared: AgentProcess) -> Iterator[Caller]:
    with Caller(shared.socket) as caller:
        yield caller


@pytest.fixture(scope="module")
def bystander(shared: AgentProcess) -> Iterator[Caller]:
    """A process of the same user and with the same identity, which holds no task."""
    with Caller(shared.socket) as caller:
        yield caller


@pytest.fixture
def uid() -> int:
    """A user of the test's own."""
    return next(UIDS)


@pytest.fixture
def stranger(agent: AgentProcess, uid: int) -> Iterator[Wire]:
    """Calls of a user whom nobody has registered yet."""
    with wire_of(agent.socket, uid) as wire:
        yield wire


def wait_for_quiet(agent: AgentProcess, seconds: float = 10.0) -> tuple[list[dict[str, object]], int]:
    """The streams and the number of live tasks that the agent still has, once there are none or time is up."""
    ends = time.monotonic() + seconds
    while True:
        status = agent.json("status")
        left = (status["streams"], status["live_tasks"])
        if left == ([], 0) or time.monotonic() > ends:
            return left
        time.sleep(0.1)


@pytest.fixture(scope="session")
def go_client() -> Path:
    """The stock go-spiffe client."""
    return built("go")


@pytest.fixture
def clients() -> Path:
    return ROOT / "tests" / "clients"
