"""A real service behind TaskTokenMiddleware, in a process of its own, and what it accepts."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness.agent import AgentProcess, clean_environment
from harness.callers import Caller
from harness.exchanges import unsigned, with_claims
from harness.looking import until
from harness.program import Program
from harness.taskagent import PLACE_A, STRANGER_UID, TICKETS, TRIAGE, make_agent
from sojourn import SyncClient


@contextlib.contextmanager
def serving(agent: AgentProcess, uid: int | None = None) -> Iterator[httpx.Client]:
    """A client of a running ticket system."""
    script = str(Path(__file__).parent.parent / "harness" / "ticketserver.py")
    arguments = [agent.socket, TICKETS, *([str(uid)] if uid is not None else [])]
    with Program([sys.executable, script, *arguments], clean_environment()) as program:
        port = program.hear()["port"]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15) as client:
            yield client


@pytest.fixture(scope="module")
def registered(shared: AgentProcess) -> Iterator[httpx.Client]:
    """A ticket system that has an identity and so hears of tasks that end."""
    with serving(shared) as client:
        yield client


@pytest.fixture(scope="module")
def unregistered(shared: AgentProcess) -> Iterator[httpx.Client]:
    """A ticket system that has no identity: it asks the agent about each token."""
    with serving(shared, STRANGER_UID) as client:
        yield client


@pytest.fixture(params=["registered", pytest.param("unregistered", marks=pytest.mark.root)])
def tickets(request: pytest.FixtureRequest) -> httpx.Client:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def workload(shared: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(shared.socket) as client:
        yield client


@pytest.fixture
def token(workload: SyncClient) -> Iterator[str]:
    with workload.task("triage-ticket") as task:
        yield task.token().token


def ask(client: httpx.Client, token: str | None, method: str = "GET", path: str = "/tickets/7") -> httpx.Response:
    return client.request(method, path, headers={"Authorization": f"Bearer {token}"} if token is not None else {})


def refused(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which must be one by RFC 6750."""
    body = response.json()
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith(f'Bearer realm="{TICKETS}"')
    assert ("error=" in challenge) == (body["error"] != "no_token")
    assert body["error_description"]
    return response.status_code, body["error"]


def test_the_action_of_the_token(tickets: httpx.Client, token: str) -> None:
    """A service accepts the action that a token grants, and its application sees whose token it is."""
    response = ask(tickets, token)
    assert 200 == response.status_code, response.text
    assert ("/tickets/7", TRIAGE) == (response.json()["path"], response.json()["who"])


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/tickets/7"), ("GET", "/admin"), ("GET", "/tickets/7/x"),
                                              ("GET", "/tickets/.."), ("POST", "/tickets/7")])  # fmt: skip
def test_another_action(tickets: httpx.Client, token: str, method: str, path: str) -> None:
    """A service answers 403 to an action that the token does not grant, and to what is no action at all."""
    response = tickets.send(
        httpx.Request(method, str(tickets.base_url.copy_with(raw_path=path.encode())),
                      headers={"Authorization": f"Bearer {token}"})
    )  # fmt: skip
    assert (403, "insufficient_scope") == refused(response)


def test_no_token(tickets: httpx.Client) -> None:
    """A service answers 401 to a request without a token, and tells no error."""
    assert (401, "no_token") == refused(ask(tickets, None))
    assert (401, "no_token") == refused(tickets.get("/tickets/7", headers={"Authorization": "Basic YTpi"}))


def test_a_token_for_another_service(tickets: httpx.Client, workload: SyncClient) -> None:
    """A service answers 401 to a good token that is for another service."""
    with workload.task("two-places") as task:
        assert (401, "invalid_token") == refused(ask(tickets, task.token(PLACE_A).token))


def test_what_is_no_task_token(tickets: httpx.Client, workload: SyncClient, token: str) -> None:
    """A service answers 401 to garbage, to forgeries, and to a JWT-SVID; two tokens are no good request."""
    svid = workload.fetch_jwt_svid(TICKETS).token
    forged = with_claims(token, exp=2**33)
    for each in ("garbage", "a.b.c", f"{token}A", unsigned(token), forged, svid):
        assert (401, "invalid_token") == refused(ask(tickets, each)), each[:20]
    assert (400, "invalid_request") == refused(ask(tickets, f"{token} {token}"))


def test_two_authorization_headers(tickets: httpx.Client, token: str) -> None:
    """A service answers 400 to a request with two Authorization headers, though one of them is good."""
    headers = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert (400, "invalid_request") == refused(tickets.get("/tickets/7", headers=headers))


def test_the_holder_is_killed(shared: AgentProcess, tickets: httpx.Client) -> None:
    """A service answers 401 to a token whose task's holder was killed, and says that the task is over."""
    with Caller(shared.socket) as holder:
        task = holder.ask("begin", type="triage-ticket")["id"]
        token = holder.ask("token", task=task)["token"]
        assert 200 == ask(tickets, token).status_code
        holder.kill()
    response = until(lambda: found if (found := ask(tickets, token)).status_code != 200 else None, "the token is dead")
    assert (401, "invalid_token") == refused(response)
    assert "the task is over" in response.json()["error_description"]


def test_an_operator_revokes(shared: AgentProcess, tickets: httpx.Client, workload: SyncClient) -> None:
    """A service answers 401 to a token whose task an operator has revoked."""
    with workload.task("triage-ticket") as task:
        token = task.token().token
        assert 200 == ask(tickets, token).status_code
        shared.run("task", "revoke", task.id)
        until(lambda: ask(tickets, token).status_code == 401, "the token is dead")


@pytest.mark.forked
def test_the_agent_is_gone() -> None:
    """A service whose agent is gone lets nobody in, and lets new tokens in once an agent is there again."""
    with make_agent() as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        with serving(agent) as tickets:
            with SyncClient(agent.socket) as client:
                token = client.begin_task("triage-ticket").token().token
                assert 200 == ask(tickets, token).status_code
            agent.kill()
            until(lambda: ask(tickets, token).status_code == 503, "what was known is stale")
            assert "1" == ask(tickets, token).headers["retry-after"]
            agent.start()
            assert ask(tickets, token).status_code in {401, 503}
            with SyncClient(agent.socket) as client:
                fresh = client.begin_task("triage-ticket").token().token
                until(lambda: ask(tickets, fresh).status_code == 200, "the service has found the new agent")
            assert 401 == ask(tickets, token).status_code
