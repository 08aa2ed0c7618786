"""Abuse of introspection and revocation, and what others got wrong there."""

import contextlib
import itertools
import os
import signal
import statistics
import time
from collections.abc import Iterator

import httpx
import pytest
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.exchanges import DETAILS, http, part
from harness.looking import until
from harness.taskagent import STRANGER_UID, TICKETS, inner_failures, make_agent, revoke_all
from harness.webclients import SERVICE, STRANGER, introspected, revoked, web
from sojourn import SyncClient

pytestmark = pytest.mark.full

CONFIG = f"""
[listen]
https = "127.0.0.1:0"
[[services]]
resource = "{TICKETS}"
workloads = ["{SERVICE}"]
"""
ASKED = {"grant_type": "client_credentials", "resource": TICKETS, "authorization_details": DETAILS}
PARAMS = {"ticket": "42"}


@contextlib.contextmanager
def an_agent() -> Iterator[AgentProcess]:
    with make_agent(extra=CONFIG) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        for path in ("/service", "/stranger"):
            agent.register(path, f"unix:uid:{STRANGER_UID}")
        yield agent
        assert [] == inner_failures(agent)


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    with an_agent() as agent:
        yield agent
        revoke_all(agent)


@pytest.fixture
def service(shared: AgentProcess) -> Iterator[httpx.Client]:
    with web(shared, SERVICE) as client:
        yield client


@pytest.fixture
def stranger(shared: AgentProcess) -> Iterator[httpx.Client]:
    with web(shared, STRANGER) as client:
        yield client


@pytest.fixture
def holder(shared: AgentProcess) -> Iterator[httpx.Client]:
    with http(shared.socket) as client:
        yield client


def one_shot(holder: httpx.Client) -> str:
    token: str = holder.post("/token", data=ASKED).json()["access_token"]
    return token


def test_case_2_a_workload_that_was_offboarded() -> None:
    """A workload whose entry is gone is no client at any endpoint, by its certificate or by its process, and its token
    is dead for its audience.
    """
    with make_agent(extra=CONFIG) as agent:
        entry = agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        agent.register("/service", f"unix:uid:{STRANGER_UID}")
        with (
            http(agent.socket) as at_socket,
            web(agent, "spiffe://example.org/agent/triage") as with_svid,
            web(agent, SERVICE) as audience,
        ):
            token = one_shot(at_socket)
            assert introspected(audience, token)["active"]
            agent.run("entry", "delete", entry["id"])
            for client, (path, data) in itertools.product(
                (at_socket, with_svid),
                (("/token", ASKED), ("/introspect", {"token": token}), ("/revoke", {"token": token})),
            ):
                answer = client.post(path, data=data)
                assert (401, "invalid_client") == (answer.status_code, answer.json()["error"]), path
            assert {"active": False, "task_state": "revoked"} == introspected(audience, token)


def test_case_2_a_type_that_was_switched_off() -> None:
    """Of a task type that is switched off no token is good, and none is given."""
    with an_agent() as agent, http(agent.socket) as at_socket, web(agent, SERVICE) as audience:
        token = one_shot(at_socket)
        agent.run("task", "block", "--type", "triage-ticket")
        assert {"active": False, "task_state": "revoked"} == introspected(audience, token)
        assert 400 == at_socket.post("/token", data=ASKED).status_code


def test_case_14_a_stolen_token_shows_and_ends_nothing(
    shared: AgentProcess, holder: httpx.Client, service: httpx.Client, stranger: httpx.Client
) -> None:
    """Whoever has stolen a token learns nothing of it at the endpoints, nor can they end the task, from another
    identity or from none.
    """
    token = one_shot(holder)
    with web(shared) as nobody:
        for path in ("/introspect", "/revoke"):
            assert 401 == nobody.post(path, data={"token": token}).status_code
    assert {"active": False} == introspected(stranger, token)
    revoked(stranger, token, token_type_hint="task")
    assert introspected(service, token)["active"]


def test_case_41_unknown_and_foreign_tokens(
    holder: httpx.Client, service: httpx.Client, stranger: httpx.Client
) -> None:
    """A token that is another's, one whose task is over, and what never was a token are answered with the same bytes."""
    live, over = one_shot(holder), one_shot(holder)
    revoked(service, over)
    texts = (live, over, live[:-6] + "AAAAAA", "x", "a.b.c")
    for path in ("/introspect", "/revoke"):
        answers = [stranger.post(path, data={"token": text}) for text in texts]
        assert 1 == len({(each.status_code, each.content, tuple(sorted(each.headers.items()))) for each in answers})
    assert introspected(service, live)["active"]


def test_case_61_unknown_and_foreign_tasks_take_the_same_time(
    shared: AgentProcess, holder: httpx.Client, stranger: httpx.Client
) -> None:
    """Whether the task of a foreign token lives, or is over, cannot be told by how long the answer takes."""
    with SyncClient(shared.socket) as sdk:
        tasks = [sdk.begin_task("triage-ticket", params=PARAMS) for _ in range(2)]
        tokens = [task.token(TICKETS, ["ticket:read"]).token for task in tasks]
        tasks[1].complete()
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(200):
            for which in (0, 1) if turn % 2 else (1, 0):
                begun = time.perf_counter()
                introspected(stranger, tokens[which])
                times[which].append(time.perf_counter() - begun)
        tasks[0].complete()
    low, high = sorted(map(statistics.median, times))
    assert high < 1.5 * low


def test_case_57_a_holder_that_is_killed(shared: AgentProcess, service: httpx.Client) -> None:
    """As soon as the holder is killed its token is refused at introspection, and its audience is told why."""
    with Caller(shared.socket) as caller:
        caller.tell("begin_process", type="triage-ticket", params=PARAMS)
        task = caller.hear("task")["id"]
        caller.tell("token", task=task, resource=TICKETS, actions=["ticket:read"])
        token = caller.hear("token")["token"]
        assert introspected(service, token)["active"]
        os.kill(caller.pid, signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: not introspected(service, token)["active"], 30)
        assert time.monotonic() - killed < 1
        assert {"active": False, "task_state": "revoked"} == introspected(service, token)


def test_CVE_2026_37979_a_foreign_audience(shared: AgentProcess, holder: httpx.Client) -> None:
    """A service that a token is not for learns nothing of it, whatever it may begin and whatever it serves itself."""
    shared.register("/wiki", f"unix:uid:{STRANGER_UID}", dns_name="wiki.example.org")
    token = one_shot(holder)
    with web(shared, "spiffe://example.org/wiki") as wiki:
        assert {"active": False} == introspected(wiki, token)
        signed = wiki.post(
            "/introspect", data={"token": token}, headers={"accept": "application/token-introspection+jwt"}
        )
        assert {"active": False} == part(signed.text, 1)["token_introspection"]


LEVELS = ("identity", "entry", "task", "token")


def test_CVE_2026_8922_a_revocation_at_any_level_wins() -> None:
    """Of the SVIDs of the identity, the entry, the task and the token any may be revoked, in all 16 combinations: one
    suffices, and none takes another's back.
    """
    with an_agent() as agent, web(agent, SERVICE) as audience, http(agent.socket) as at_socket:
        for number in range(2 ** len(LEVELS)):
            chosen = [level for place, level in enumerate(LEVELS) if number >> place & 1]
            with SyncClient(agent.socket) as sdk:
                task = sdk.begin_task("triage-ticket", params=PARAMS)
                token = task.token(TICKETS, ["ticket:read"]).token
                for level in chosen:
                    if level == "identity":
                        agent.run("svid", "revoke", "--spiffe-id", "spiffe://example.org/agent/triage")
                    elif level == "entry":
                        (entry,) = agent.json("entry", "list", "--spiffe-id", "spiffe://example.org/agent/triage")[
                            "entries"
                        ]
                        agent.run("entry", "delete", entry["id"])
                        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
                    elif level == "task":
                        agent.run("task", "revoke", task.id, check=False)
                    else:
                        revoked(at_socket, token)
                assert introspected(audience, token)["active"] == (not chosen), chosen
                assert sdk.validate_token(token, TICKETS).valid == (not chosen), chosen
                if not chosen:
                    task.complete()


def test_CVE_2026_9802_a_restart_between_revocation_and_replay() -> None:
    """What was revoked stays so when the agent is killed right after the answer, and started again."""
    with an_agent() as agent:
        sdk = SyncClient(agent.socket)
        with sdk, http(agent.socket) as at_socket:
            ended, lives = (sdk.begin_task("triage-ticket", params=PARAMS) for _ in range(2))
            tokens = [task.token(TICKETS, ["ticket:read"]).token for task in (ended, lives)]
            before = part(tokens[1], 1)["task"]["ver"]
            revoked(at_socket, tokens[0], token_type_hint="task")
            revoked(at_socket, tokens[1])
            agent.kill()
            agent.start()
            with web(agent, SERVICE) as audience, http(agent.socket) as again:
                for token in tokens:
                    assert not introspected(audience, token)["active"]
                    revoked(again, token)
            shown = agent.json("task", "show", lives.id)
            assert shown["version"] > before
            records = agent.json("audit", "tail")["records"]
            assert {ended.id, lives.id} <= {
                each["fields"]["task"] for each in records if each["event"] in {"task_ended", "tokens_revoked"}
            }


@pytest.mark.parametrize("header", ["Origin", "Referer", "Via", "Forwarded", "X-Forwarded-For", "x-forwarded-proto"])
@pytest.mark.parametrize("path", ["/token", "/introspect", "/revoke"])
def test_S7_what_a_process_passes_on(shared: AgentProcess, path: str, header: str) -> None:
    """A request that a workload's process passes on to the Unix socket for a browser, or as a proxy, gets nothing that
    the workload would get; one without such a header does, and what is for everybody is answered all the same.
    """
    with http(shared.socket) as client:
        refused = client.post(path, data=ASKED, headers={header: "https://elsewhere.example"})
        assert (400, "invalid_request") == (refused.status_code, refused.json()["error"])
        assert "passed on" in refused.json()["error_description"]
        assert 200 == client.get("/keys", headers={header: "x"}).status_code
        assert 200 == client.post("/token", data=ASKED).status_code
