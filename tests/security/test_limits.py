"""Once is once: with real agents, guards in processes of their own, Envoy's question, kills, and those who do not ask."""

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sojourn
from harness.agent import AgentProcess
from harness.racing import GuardProcess
from harness.taskagent import inner_failures, make_agent, revoke_all, write_type
from harness.taskcalls import Feed, refusal, unary
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sojourn import Client, SyncClient, TaskTokenMiddleware, TaskVerifier
from sojourn._pb.envoy.service.auth.v3 import external_auth_pb2 as envoy
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import Refused, SojournError
from sojourn.errors.oauth import ToolRefused
from sojourn.sdk.guard.tools import guarded

SHOP, OTHER = "https://shop.example.org", "https://other.example.org"
SUPPORT = "spiffe://example.org/agent/triage"
REFUND, READ = "refund:create", "order:read"
ALL = '@id("all") permit (principal, action, resource);'
VALIDATE = "/sojourn.v1.Validation/ValidateToken"
CHECK = "/envoy.service.auth.v3.Authorization/Check"
RACERS = 50


def refunds(limit: int, **lines: str) -> str:
    more = "\n".join(f"{name} = {value}" for name, value in lines.items())
    return f"""
allowed_workloads = ["{SUPPORT}"]
{more}
[limits]
"{REFUND}" = {limit}
[delegation]
to = ["spiffe://example.org/agent/helper"]
[params]
order = {{type = "string"}}
[[ceiling]]
resource = "{SHOP}"
actions = ["{READ}", "{REFUND}"]
[[ceiling]]
resource = "{OTHER}"
actions = ["{REFUND}"]
"""


CAREFUL = f"""
allowed_workloads = ["{SUPPORT}"]
consequence_of = {{"{REFUND}" = "high"}}
limits = {{"{REFUND}" = 1}}
[[ceiling]]
resource = "{SHOP}"
actions = ["{READ}", "{REFUND}"]
"""
SERVICES = """
[[services]]
resource = "https://theirs.example.org"
workloads = ["spiffe://example.org/theirs"]
"""
THEIRS = f"""
allowed_workloads = ["{SUPPORT}"]
[limits]
"{REFUND}" = 1
[[ceiling]]
resource = "https://theirs.example.org"
actions = ["{READ}", "{REFUND}"]
"""


def made_agent() -> AgentProcess:
    made = make_agent(extra=SERVICES)
    for name, toml in {
        "refund": refunds(1),
        "refund-often": refunds(20),
        "careful-refund": CAREFUL,
        "theirs": THEIRS,
    }.items():
        write_type(made.folder / "types", name, toml, ALL)
    return made


def registered(agent: AgentProcess) -> None:
    for path in ("/agent/triage", "/agent/helper"):
        agent.register(path, f"unix:uid:{os.getuid()}")


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with made_agent() as running:
        registered(running)
        yield running
        revoke_all(running)
        assert [] == inner_failures(running)


@pytest.fixture
def own() -> Iterator[AgentProcess]:
    """An agent that is stopped and killed."""
    with made_agent() as running:
        registered(running)
        yield running


def ask(agent: AgentProcess, token: str, *, use: bool = True, action: str = REFUND, audience: str = SHOP) -> Any:
    request = pb.ValidateTokenRequest(token=token, audience=audience, action=action, use=use)
    return unary(agent.socket, VALIDATE, request, pb.ValidateTokenResponse)


def envoy_asks(agent: AgentProcess, token: str, audience: str = SHOP) -> int:
    """The status that an Envoy is told for a refund."""
    request = envoy.CheckRequest()
    said = request.attributes
    said.context_extensions.update({"sojourn.audience": audience, "sojourn.action": REFUND})
    said.request.http.method, said.request.http.path = "POST", "/refunds"
    said.request.http.headers["authorization"] = f"Bearer {token}"
    answer = unary(agent.socket, CHECK, request, envoy.CheckResponse)
    return int(answer.denied_response.status.code) if answer.status.code else 200


def counted(agent: AgentProcess, task: str) -> tuple[int, int]:
    found = [use for use in agent.json("task", "show", task)["uses"] if use["action"] == REFUND]
    (pair,) = {(use["counted"], use["limit"]) for use in found}
    return pair


class TestRaces:
    @pytest.mark.forked
    def test_two_guards_and_an_envoy(self, agent: AgentProcess) -> None:
        """Fifty refunds at once, by several tokens, at two guards, at an Envoy and by hand: one goes through."""
        with (
            SyncClient(agent.socket) as client,
            client.task("refund") as task,
            GuardProcess(agent.socket, SHOP, REFUND) as one,
            GuardProcess(agent.socket, OTHER, REFUND) as other,
            ThreadPoolExecutor(8) as pool,
        ):
            tokens = [task.token(SHOP).token for _ in range(4)]
            elsewhere = [task.token(OTHER).token for _ in range(4)]
            one.send(tokens * 5)
            other.send(elsewhere * 5)
            by_envoy = [pool.submit(envoy_asks, agent, tokens[each % 4]) for each in range(5)]
            by_hand = [pool.submit(ask, agent, tokens[each % 4]) for each in range(5)]
            guarded = [*one.hear(), *other.hear()]
            statuses, verdicts = [each.result() for each in by_envoy], [each.result() for each in by_hand]
            assert RACERS == len(guarded) + len(statuses) + len(verdicts)
            assert 1 == guarded.count(0) + statuses.count(200) + [each.valid for each in verdicts].count(True)
            said = f"403 limit_reached: a task of type 'refund' may do '{REFUND}' once, and has done so"
            assert {0, said} >= set(guarded)
            assert {200, 403} >= set(statuses)
            assert {"", "limit_reached"} >= {each.code for each in verdicts}
            assert (1, 1) == counted(agent, task.id)
            assert "active" == task.state

    def test_a_look_spends_nothing(self, agent: AgentProcess) -> None:
        """However often a task looks, its refund is there; and after the refund it may look again."""
        with (
            SyncClient(agent.socket) as client,
            client.task("refund") as task,
            GuardProcess(agent.socket, SHOP, READ) as looks,
            GuardProcess(agent.socket, SHOP, REFUND) as pays,
        ):
            token = task.token(SHOP).token
            looks.send([token] * 9)
            assert [0] * 9 == looks.hear()
            pays.send([token])
            assert [0] == pays.hear()
            looks.send([token, task.token(SHOP).token])
            assert [0, 0] == looks.hear()

    def test_with_those_it_was_handed_to(self, agent: AgentProcess) -> None:
        """A task and the one that it handed on have one limit between them."""
        helper = "spiffe://example.org/agent/helper"
        with (
            SyncClient(agent.socket) as client,
            client.task("refund-often") as task,
            GuardProcess(agent.socket, SHOP, REFUND) as guard,
            client.accept_delegation(task.delegate(to=helper)) as child,
        ):
            guard.send([task.token(SHOP).token, child.token(SHOP).token] * 25)
            assert 20 == guard.hear().count(0)
            assert (20, 20) == counted(agent, task.id) == counted(agent, child.id)


@pytest.fixture
async def shop(agent: AgentProcess) -> AsyncIterator[tuple[Any, list[str]]]:
    """A guarded application, as httpx reaches it, and what it has served."""
    served: list[str] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        served.append(f"{scope['method']} {scope['sojourn.task'].task_class}")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async with Client(agent.socket) as client, TaskVerifier(client, SHOP) as verifier:
        await verifier.feed.wait_ready(30)
        actions = {"GET /orders/{order}": READ, "POST /orders/{order}/refunds": REFUND}
        guarded = TaskTokenMiddleware(app, actions=actions, verifier=verifier)
        yield httpx.ASGITransport(guarded), served


class TestOneTask:
    """A task that may look, and refund once, with the client that Sojourn gives it."""

    async def test_as_it_is_written(self, agent: AgentProcess, shop: tuple[Any, list[str]]) -> None:
        """It names no action: looks have tokens of class normal, the refund one of its own, and the second is refused."""
        transport, served = shop
        async with (
            Client(agent.socket) as client,
            client.task("careful-refund") as task,
            task.client(SHOP, transport=transport) as http,
        ):
            looks = [await http.get("/orders/O-1") for _ in range(2)]
            first = await http.post("/orders/O-1/refunds", json={"cents": 2500})
            with pytest.raises(Refused) as second:
                await http.post("/orders/O-1/refunds", json={"cents": 2500})
            looks.append(await http.get("/orders/O-1"))
        assert [200] * 3 == [each.status_code for each in looks]
        assert (200, ["GET normal"] * 2 + ["POST high", "GET normal"]) == (first.status_code, served)
        assert "limit_reached" == _code(second.value)

    async def test_fifty_at_once(self, agent: AgentProcess, shop: tuple[Any, list[str]]) -> None:
        """Fifty refunds of one task at once, a token for each: one is served."""
        transport, served = shop
        async with (
            Client(agent.socket) as client,
            client.task("careful-refund") as task,
            task.client(SHOP, transport=transport) as http,
        ):
            posts = (http.post("/orders/O-1/refunds", content=str(each)) for each in range(RACERS))
            answers = await asyncio.gather(*posts, return_exceptions=True)
        assert ["POST high"] == served
        codes = sorted(_code(each) for each in answers)
        assert ["limit_reached"] * (RACERS - 1) + ["served"] == codes

    async def test_a_normal_token_is_none_for_a_refund(self, agent: AgentProcess, shop: tuple[Any, list[str]]) -> None:
        """A token of the lower class is refused for the higher action, and the refusal says what is lacking."""
        transport, served = shop
        async with Client(agent.socket) as client, client.task("careful-refund") as task:
            token = await task.token(SHOP)
            assert (READ,) == token.actions
            async with httpx.AsyncClient(transport=transport, base_url=SHOP) as http:
                answer = await http.post("/orders/O-1/refunds", headers={"Authorization": token.header})
        assert (403, []) == (answer.status_code, served)
        assert f'scope="{REFUND}"' in answer.headers["www-authenticate"]

    async def test_in_one_process(self, agent: AgentProcess) -> None:
        """A function that guards itself is called as often as the limit says, and once more is refused."""
        made: list[int] = []

        @guarded(REFUND, resource=SHOP)
        async def refund(cents: int) -> None:
            made.append(cents)

        async with sojourn.task("careful-refund", socket=agent.socket):
            outcomes = await asyncio.gather(*(refund(each) for each in range(9)), return_exceptions=True)
        assert 1 == len(made) == outcomes.count(None)
        assert {"limit_reached"} == {each.reason_code for each in outcomes if isinstance(each, ToolRefused)}


def _code(answer: Any) -> str:
    """How a request ended: the guard's error, or the agent's, which gave no token for it."""
    if isinstance(answer, SojournError):
        return answer.remote_code or answer.code
    return "served" if answer.status_code == 200 else str(answer.json()["error"])


class Uses(threading.Thread):
    """Uses an action of a task until the agent has gone; counts what it was told."""

    def __init__(self, agent: AgentProcess, task: str) -> None:
        super().__init__()
        self._agent, self._task = agent, task
        self.told = 0
        self.asked = 0

    def run(self) -> None:
        try:
            with SyncClient(self._agent.socket, deadline_seconds=5) as client:
                while True:
                    token = client.get_token(self._task, SHOP, [REFUND]).token
                    self.asked += 1
                    self.told += ask(self._agent, token).valid
        except Exception:
            return


@pytest.mark.forked
def test_kills(own: AgentProcess) -> None:
    """However often the agent is killed or stopped while uses race, no more than the limit are told, and all count."""
    agent, chance = own, random.Random(20)
    with SyncClient(agent.socket) as client:
        task = client.begin_task("refund-often").id
    told = asked = 0
    for way in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        racing = [Uses(agent, task) for _ in range(4)]
        for each in racing:
            each.start()
        time.sleep(chance.random() * 0.1)
        agent.stop(way)
        for each in racing:
            each.join(30)
        told += sum(each.told for each in racing)
        asked += sum(each.asked for each in racing)
        agent.start()
        with SyncClient(agent.socket) as client:
            client.get_token(task, SHOP, [READ])  # the task is given back
        spent, limit = counted(agent, task)
        assert told <= spent <= min(asked, limit)
    with SyncClient(agent.socket) as client:
        token = client.get_token(task, SHOP, [READ]).token
        left = 20 - counted(agent, task)[0]
        assert not ask(agent, token).valid, "the token is for reading"
        for _ in range(left):
            told += ask(agent, client.get_token(task, SHOP, [REFUND]).token).valid
        assert told <= 20
        assert (20, 20) == counted(agent, task)


class TestWhoDoesNotAsk:
    """A token for a counted action is of no use where nobody asks."""

    def test_a_look_is_no_permission(self, agent: AgentProcess) -> None:
        """An agent that is asked about a counted action, and not told that it is a use, says no."""
        with SyncClient(agent.socket) as client, client.task("refund") as task:
            token = task.token(SHOP).token
            answer = ask(agent, token, use=False)
            assert (False, "use_needed") == (answer.valid, answer.code)
            assert ask(agent, token, use=False, action="").valid
            assert (False, "wrong_params") == (ask(agent, token, action="").valid, ask(agent, token, action="").code)
            assert (0, 1) == counted(agent, task.id)

    def test_what_is_refused_spends_nothing(self, agent: AgentProcess) -> None:
        """Uses for another audience, of another action and with broken tokens are refused, and none is spent."""
        with SyncClient(agent.socket) as client, client.task("refund") as task:
            token = task.token(SHOP).token
            reading = task.token(SHOP, [READ]).token
            refused = [
                ask(agent, token, audience=OTHER),
                ask(agent, reading),
                ask(agent, token[:-8] + "AAAAAAAA"),
                ask(agent, token, action="refund:undo"),
            ]
            assert [False] * 4 == [each.valid for each in refused]
            assert (0, 1) == counted(agent, task.id)
            assert ask(agent, token).valid

    @pytest.mark.forked
    def test_an_agent_that_cannot_be_reached(self, agent: AgentProcess) -> None:
        """A guard that cannot ask lets no counted action through, and others as long as its feed is fresh."""
        with (
            SyncClient(agent.socket) as client,
            client.task("refund") as task,
            GuardProcess(agent.socket, SHOP, REFUND) as pays,
        ):
            token = task.token(SHOP).token
            assert agent.process is not None
            agent.process.send_signal(signal.SIGSTOP)
            try:
                pays.send([token] * 3)
                found = pays.hear()
            finally:
                agent.process.send_signal(signal.SIGCONT)
            assert all(str(each).startswith("503 temporarily_unavailable") for each in found), found

    def test_stock_libraries(self, agent: AgentProcess) -> None:
        """A library that keeps to RFC 7515 (4.1.11) and knows nothing of us refuses such a token, and takes others."""
        with SyncClient(agent.socket) as client, client.task("refund") as task, Feed(agent.socket, [SHOP]) as feed:
            keys = KeySet.import_key_set(json.loads(feed.hear("snapshot").keys))
            assert SUPPORT == jwt.decode(task.token(SHOP, [READ]).token, keys).claims["sub"]
            with pytest.raises(JoseError):
                jwt.decode(task.token(SHOP).token, keys)


class TestWhoAsks:
    """Uses take something from a task: only its service may tell of them."""

    def test_another_than_the_service(self, agent: AgentProcess) -> None:
        """Where [[services]] names the audience, nobody else uses its tokens up, by no way; the service may."""
        theirs = "https://theirs.example.org"
        with SyncClient(agent.socket) as client, client.task("theirs") as task:
            token = task.token(theirs).token
            request = pb.ValidateTokenRequest(token=token, audience=theirs, action=REFUND, use=True)
            code, said = refusal(agent.socket, VALIDATE, request, pb.ValidateTokenResponse)
            assert ("PERMISSION_DENIED", True) == (code, "[[services]] names others" in said)
            assert 503 == envoy_asks(agent, token, theirs)
            assert (0, 1) == counted(agent, task.id)
            agent.register("/theirs", f"unix:uid:{os.getuid()}")
            assert 200 == envoy_asks(agent, token, theirs)
            assert (1, 1) == counted(agent, task.id)
