"""The feed of live tasks in hostile hands: cut, delayed, duplicated, reordered, or replayed from an old epoch."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from fakes.fake_agent import ScriptedAgent
from fakes.task_feed import AUDIENCE, HOLDER, Boot, delta, heartbeat, live, over, signing_key, snapshot, token
from harness.agent import AgentProcess
from harness.exchanges import part, with_claims
from harness.taskagent import PLACE_A, make_agent
from sojourn import Client, TaskVerifier
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import InvalidToken
from sojourn.sdk.guard import verifier as verifiers
from sojourn.sdk.guard.task_feed import STALE_SECONDS, TaskFeed
from sojourn.tasktoken.request_digest import of_tool
from sojourn.tasktoken.sender_constraint import Proven

pytestmark = pytest.mark.full

KEY = signing_key()
DIGEST = of_tool("destroy", {})
EPOCH = 3
YES = pb.ValidateTokenResponse(valid=True, kind=pb.TOKEN_KIND_TASK, spiffe_id=str(HOLDER))
SUSPENDED = pb.TaskState(id="t1", version=6, reason="suspended: operator", suspended=True)


@pytest.fixture
def boot() -> Boot:
    return Boot()


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[ScriptedAgent]:
    """Its feed says that t1 lives from version 5 on; whatever it is asked, it says yes."""
    async with ScriptedAgent().serve(tmp_path / "agent.sock") as running:
        running.answers["ValidateToken"] = YES
        running.push("WatchTasks", snapshot([KEY], live("t1", 5), epoch=EPOCH))
        yield running


@pytest.fixture
async def verifier(agent: ScriptedAgent, tmp_path: Path, boot: Boot) -> AsyncIterator[TaskVerifier]:
    async with (
        Client(str(tmp_path / "agent.sock"), deadline_seconds=5) as client,
        TaskFeed(client, [AUDIENCE], boot=boot) as feed,
        TaskVerifier(client, AUDIENCE, feed=feed) as running,
    ):
        await feed.wait_ready(10)
        yield running


async def verdict(verifier: TaskVerifier, text: str) -> str:
    """`good`, or the code of the refusal, for a sender who has proved all that the token needs."""
    claims = part(text, 1)
    jkt = claims["cnf"]["jkt"] if "cnf" in claims else ""
    digest = claims["authorization_details"][0].get("params_digest", "")
    try:
        await verifier.verify(text, proven=Proven(jkt=jkt), params_digest=digest)
    except InvalidToken as error:
        return error.reason_code
    return "good"


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def heard(verifier: TaskVerifier, agent: ScriptedAgent) -> None:
    """Return once all is heard that was said before."""
    agent.push("WatchTasks", delta(live("mark"), epoch=EPOCH))
    await until(lambda: verifier.feed.lookup("mark") is not None)


HIGH, NORMAL = token(KEY, task_class="high", seconds=3600), token(KEY, seconds=3600)


async def check_stale(verifier: TaskVerifier) -> None:
    """Class high is refused, and of others the agent is asked, which says yes."""
    assert ("stale_feed", "good") == (await verdict(verifier, HIGH), await verdict(verifier, NORMAL))


async def test_fresh(agent: ScriptedAgent, verifier: TaskVerifier) -> None:
    """Under a fresh feed tokens of both classes are judged here; the agent is told of the use of one of class high."""
    assert ["good"] * 2 == [await verdict(verifier, text) for text in (HIGH, NORMAL)]
    assert ["WatchTasks", "ValidateToken"] == [method for method, _ in agent.requests]
    assert (HIGH, True) == (agent.requests[1][1].token, agent.requests[1][1].use)


async def test_cut(agent: ScriptedAgent, verifier: TaskVerifier) -> None:
    """When its feed is cut a validator accepts no token of class high, until there is a feed again."""
    agent.push("WatchTasks", None)
    await until(lambda: not verifier.feed.fresh)
    await check_stale(verifier)
    agent.push("WatchTasks", snapshot([KEY], live("t1", 5), epoch=EPOCH))
    await verifier.feed.wait_ready(20)
    assert "good" == await verdict(verifier, HIGH)


async def test_begun_anew(agent: ScriptedAgent, verifier: TaskVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of class high that comes while a cut feed is begun anew is judged by the new feed, if that comes soon."""
    agent.push("WatchTasks", delta(over("t1", 6), live("t2", 1), epoch=EPOCH), None)
    await until(lambda: not verifier.feed.fresh)
    monkeypatch.setattr(verifiers, "COME_BACK_SECONDS", 20)  # a busy machine connects late
    texts = HIGH, token(KEY, "t2", 1, task_class="high", seconds=3600)
    judging = [asyncio.ensure_future(verdict(verifier, text)) for text in texts]
    agent.push("WatchTasks", snapshot([KEY], over("t1", 6), live("t2", 1), epoch=EPOCH))
    assert ["task_over", "good"] == await asyncio.gather(*judging)
    assert ["WatchTasks", "WatchTasks", "ValidateToken"] == [method for method, _ in agent.requests]


async def test_delayed(agent: ScriptedAgent, verifier: TaskVerifier, boot: Boot) -> None:
    """A feed that is late by three heartbeats is silent, whatever it then says was on its way."""
    boot.seconds += STALE_SECONDS - 0.1
    assert "good" == await verdict(verifier, HIGH)
    boot.seconds += 0.1
    await check_stale(verifier)
    agent.push("WatchTasks", delta(over("t1", 6), epoch=EPOCH), heartbeat(epoch=EPOCH))
    await until(lambda: verifier.feed.fresh)
    assert ["task_over"] * 2 == [await verdict(verifier, text) for text in (HIGH, NORMAL)]


async def test_duplicated(agent: ScriptedAgent, verifier: TaskVerifier) -> None:
    """What is said twice counts once: neither an end nor a suspension is taken back by what was said before it."""
    begun, suspended, ended = live("t1", 5), SUSPENDED, over("t1", 7)
    agent.push("WatchTasks", *(delta(state, epoch=EPOCH) for state in (begun, begun, suspended, suspended, begun)))
    await heard(verifier, agent)
    assert "task_over" == await verdict(verifier, HIGH)
    agent.push("WatchTasks", *(delta(state, epoch=EPOCH) for state in (ended, ended, begun, suspended, begun)))
    agent.push("WatchTasks", delta(live("t2", 1), live("t2", 1), epoch=EPOCH))
    await until(lambda: verifier.feed.lookup("t2") is not None)
    assert "task_over" == await verdict(verifier, HIGH)
    assert "good" == await verdict(verifier, token(KEY, "t2", 1, task_class="high"))


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
async def test_reordered(agent: ScriptedAgent, verifier: TaskVerifier, order: tuple[int, ...]) -> None:
    """In whichever order the words on a task arrive, once its end has arrived no token of it is accepted."""
    words = live("t9", 8), live("t9", 9), over("t9", 10)
    ended = False
    for number, place in enumerate(order):
        agent.push("WatchTasks", delta(words[place], live(f"mark{number}"), epoch=EPOCH))
        await until(lambda number=number: verifier.feed.lookup(f"mark{number}") is not None)
        ended = ended or place == 2
        verdicts = {await verdict(verifier, token(KEY, "t9", version, task_class="high")) for version in (8, 9, 10)}
        assert ended == ("good" not in verdicts)


@pytest.mark.parametrize("kind", ["heartbeat", "delta"])
@pytest.mark.parametrize("epoch", [EPOCH - 1, EPOCH + 1])
async def test_of_another_epoch(agent: ScriptedAgent, verifier: TaskVerifier, kind: str, epoch: int) -> None:
    """A message of another epoch than its stream's, replayed or not, is not believed, and ends the stream."""
    agent.push("WatchTasks", heartbeat(epoch) if kind == "heartbeat" else delta(live("t7"), epoch=epoch))
    await until(lambda: not verifier.feed.fresh)
    assert verifier.feed.lookup("t7") is None
    await check_stale(verifier)


async def test_replayed_from_an_old_epoch(agent: ScriptedAgent, verifier: TaskVerifier) -> None:
    """A whole feed of an earlier epoch, keys and all, revives nothing; one of the same epoch is believed again."""
    agent.push("WatchTasks", delta(over("t1", 6), epoch=EPOCH), None)
    await until(lambda: not verifier.feed.fresh)
    old = signing_key("old")
    agent.push("WatchTasks", snapshot([KEY, old], live("t1", 5), live("t8", 1), epoch=EPOCH - 1))
    with pytest.raises(Exception, match="gone back from 3 to 2"):
        await verifier.feed.wait_ready(2)
    await check_stale(verifier)
    assert "stale_feed" == await verdict(verifier, token(old, "t8", 1, task_class="high"))
    agent.push("WatchTasks", snapshot([KEY], over("t1", 6), epoch=EPOCH))
    await verifier.feed.wait_ready(20)
    assert "task_over" == await verdict(verifier, HIGH)


@pytest.mark.parametrize("task_class", ["high", "", "low", "Normal", "NORMAL", "\u0000normal"])
async def test_a_class_that_is_not_known(verifier: TaskVerifier, boot: Boot, task_class: str) -> None:
    """Under a silent feed a token of any class but `normal` is refused, known or not."""
    text = token(KEY, task_class=task_class)
    assert "good" == await verdict(verifier, text)
    boot.seconds += STALE_SECONDS
    assert "stale_feed" == await verdict(verifier, text)


async def test_no_class(verifier: TaskVerifier, boot: Boot) -> None:
    """Under a silent feed a token without a class, as an earlier release gave them, is refused."""
    claims = part(NORMAL, 1)
    text = KEY.sign({**claims, "task": {"id": "t1", "type": "triage-ticket", "ver": 5}}, typ="at+jwt")
    assert "good" == await verdict(verifier, text)
    boot.seconds += STALE_SECONDS
    assert "stale_feed" == await verdict(verifier, text)


@pytest.fixture(scope="module")
def real() -> Iterator[AgentProcess]:
    """The agent itself."""
    with make_agent() as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running


async def test_a_class_that_is_written_in(real: AgentProcess, boot: Boot) -> None:
    """Writing a lower class into a token of class high gains nothing: the agent, when it is asked, refuses it."""
    async with (
        Client(real.socket) as client,
        TaskFeed(client, [PLACE_A], boot=boot) as feed,
        TaskVerifier(client, PLACE_A, feed=feed) as verifier,
        client.task("careful") as task,
    ):
        await feed.wait_ready(10)
        text = (await task.token(bound="agent", params_digest=DIGEST)).token
        assert "high" == part(text, 1)["task"]["class"]
        forged = with_claims(text, task={**part(text, 1)["task"], "class": "normal"})
        assert ("good", "bad_signature") == (await verdict(verifier, text), await verdict(verifier, forged))
        await feed.close()
        assert ("stale_feed", "bad_signature") == (await verdict(verifier, text), await verdict(verifier, forged))


async def test_an_agent_that_is_stopped(real: AgentProcess) -> None:
    """While the agent hangs, tokens of class high are refused as soon as three heartbeats are missed."""
    async with (
        Client(real.socket) as client,
        TaskVerifier(client, PLACE_A) as verifier,
        client.task("careful") as task,
    ):
        await verifier.feed.wait_ready(10)
        text = (await task.token(bound="agent", params_digest=DIGEST)).token
        assert "good" == await verdict(verifier, text)
        os.kill(real.pid, signal.SIGSTOP)
        try:
            await until(lambda: not verifier.feed.fresh)
            assert "stale_feed" == await verdict(verifier, text)
        finally:
            os.kill(real.pid, signal.SIGCONT)
        await until(lambda: verifier.feed.fresh)
        assert "good" == await verdict(verifier, (await task.token(bound="agent", params_digest=DIGEST)).token)
