"""The feed of live tasks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import grpc
import pytest
from fakes.fake_agent import Fail, ScriptedAgent
from fakes.task_feed import AUDIENCE, ISSUER, Boot, delta, heartbeat, live, over, part, signing_key, snapshot, token
from harness.looking import WAIT_SECONDS, idle
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import Unavailable
from sojourn.limits import ENDED_TASKS_KEPT, LIVE_TASKS
from sojourn.sdk.client.client import Client
from sojourn.sdk.guard import task_feed as feeds
from sojourn.sdk.guard.task_feed import STALE_SECONDS, TaskFeed, TaskKnown
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.tasktoken import tokens

KEY = signing_key()


@pytest.fixture
def boot() -> Boot:
    return Boot()


@pytest.fixture
async def feed(agent: ScriptedAgent, client: Client, boot: Boot) -> AsyncIterator[TaskFeed]:
    """A feed that has its first snapshot: the task t1 is live."""
    agent.push("WatchTasks", snapshot([KEY], live("t1", 5)))
    async with TaskFeed(client, [AUDIENCE], boot=boot) as running:
        await running.wait_ready(5)
        yield running


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():
            await asyncio.sleep(0)  # the message is on its way through a real socket


async def test_snapshot(agent: ScriptedAgent, feed: TaskFeed) -> None:
    """A snapshot gives issuer, keys, epoch and live tasks; of others nothing is known."""
    assert (ISSUER, {"k1"}, 1, True) == (feed.issuer, set(feed.keys), feed.epoch, feed.fresh)
    assert TaskKnown(5, True, "") == feed.lookup("t1")
    assert feed.lookup("t2") is None
    assert list(agent.requests[0][1].audiences) == [AUDIENCE]


async def test_delta(agent: ScriptedAgent, feed: TaskFeed) -> None:
    """A delta ends tasks, begins tasks and brings keys."""
    agent.push("WatchTasks", delta(over("t1"), live("t2", 7), keys=[KEY, signing_key("k2")]))
    await until(lambda: feed.lookup("t2") is not None)
    assert TaskKnown(6, False, "holder is gone") == feed.lookup("t1")
    assert {"k1", "k2"} == set(feed.keys)


async def test_end_is_an_end(agent: ScriptedAgent, feed: TaskFeed) -> None:
    """An ended task is not revived by an older or equal version, and a version never runs backwards."""
    agent.push("WatchTasks", delta(over("t1", 6)), delta(live("t1", 6), live("t1", 5)), delta(live("t2", 7)))
    agent.push("WatchTasks", delta(live("t2", 6)), delta(live("t3")))
    await until(lambda: feed.lookup("t3") is not None)
    assert TaskKnown(6, False, "holder is gone") == feed.lookup("t1")
    assert TaskKnown(7, True, "") == feed.lookup("t2")


async def test_resumed(agent: ScriptedAgent, feed: TaskFeed) -> None:
    """A suspended task is live again with a greater version."""
    agent.push("WatchTasks", delta(over("t1", 6, "suspended")), delta(live("t1", 7)))
    await until(lambda: feed.lookup("t1") == TaskKnown(7, True, ""))


async def test_silence_is_stale(agent: ScriptedAgent, feed: TaskFeed, boot: Boot) -> None:
    """A feed that is silent for three heartbeats is stale, and a heartbeat makes it fresh."""
    boot.seconds += STALE_SECONDS - 0.1
    assert feed.fresh
    boot.seconds += 0.1
    assert not feed.fresh
    agent.push("WatchTasks", heartbeat())
    await until(lambda: feed.fresh)


async def test_reconnect_replaces(agent: ScriptedAgent, feed: TaskFeed) -> None:
    """After the stream's end nothing is fresh until a new snapshot, which replaces all."""
    agent.push("WatchTasks", delta(over("t1")), None)
    await until(lambda: not feed.fresh)
    agent.push("WatchTasks", snapshot([signing_key("k9")], live("t4"), epoch=2))
    await feed.wait_ready(5)
    assert (None, None, 2, {"k9"}) == (feed.lookup("t1"), feed.lookup("t2"), feed.epoch, set(feed.keys))


async def test_new_epoch(agent: ScriptedAgent, feed: TaskFeed) -> None:
    """A message of a new epoch without snapshot voids what was known."""
    agent.push("WatchTasks", heartbeat(epoch=2), None)
    await until(lambda: not feed.fresh)


async def test_no_snapshot(agent: ScriptedAgent, client: Client) -> None:
    """A feed that does not begin with a snapshot is never ready, and the reason is told."""
    agent.push("WatchTasks", delta(live()))
    async with TaskFeed(client, [AUDIENCE]) as feed:
        with pytest.raises(Unavailable, match="snapshot"):
            await feed.wait_ready(0.2)
        assert not feed.fresh


async def test_for_good(agent: ScriptedAgent, client: Client) -> None:
    """A feed that the agent does not have stays stale."""
    agent.push("WatchTasks", Fail(grpc.StatusCode.UNIMPLEMENTED, "no feed"))
    async with TaskFeed(client, [AUDIENCE]) as feed:
        with pytest.raises(Exception, match="no feed"):
            await feed.wait_ready(0.2)
        assert not feed.fresh


async def test_bounded(agent: ScriptedAgent, feed: TaskFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limits the oldest ended tasks, and further live ones, are unknown."""
    assert (ENDED_TASKS_KEPT, LIVE_TASKS) == (10_000, 100_000)
    monkeypatch.setattr(feed._tasks._ended, "room", 2)
    monkeypatch.setattr(feeds, "LIVE_TASKS", 2)
    agent.push("WatchTasks", delta(*(over(f"e{n}") for n in range(3)), *(live(f"l{n}") for n in range(3)), over("z")))
    await until(lambda: feed.lookup("z") is not None)
    assert [feed.lookup(f"e{n}") and True for n in range(3)] == [None, None, True]
    assert [feed.lookup(f"l{n}") and True for n in range(3)] == [True, None, None]


async def test_closed(feed: TaskFeed) -> None:
    """A closed feed is not fresh."""
    await feed.close()
    assert not feed.fresh


async def test_hooks(agent: ScriptedAgent, feed: TaskFeed) -> None:
    """Whoever wants to hear of tasks hears of each as it comes, and once of all when they are heard anew; until they do
    not want to any more.
    """
    heard: list[str] = []
    end = feed.on_news(heard.append)
    agent.push("WatchTasks", delta(over("t1"), live("t2", 7)))
    await until(lambda: feed.lookup("t2") is not None)
    assert ["t1", "t2"] == heard
    agent.push("WatchTasks", snapshot([KEY], live("t3")))
    await until(lambda: feed.lookup("t3") is not None)
    assert ["t1", "t2", ""] == heard
    end()
    agent.push("WatchTasks", delta(live("t4")))
    await until(lambda: feed.lookup("t4") is not None)
    assert ["t1", "t2", ""] == heard


class TestInParts:
    async def test_a_streams_first(self, agent: ScriptedAgent, client: Client) -> None:
        """A stream that begins with a snapshot in parts is ready with the last of them, and not before."""
        agent.push("WatchTasks", snapshot([KEY], live("t1"), more=True), part(live("t2"), more=True))
        async with TaskFeed(client, [AUDIENCE]) as feed:
            with pytest.raises(Unavailable):
                await feed.wait_ready(0.2)
            assert not feed.fresh
            agent.push("WatchTasks", part(live("t3")))
            await feed.wait_ready(5)
            assert all(feed.lookup(each) is not None for each in ("t1", "t2", "t3"))
            assert (ISSUER, {"k1"}) == (feed.issuer, set(feed.keys))

    async def test_in_force_with_the_last(self, agent: ScriptedAgent, client: Client, feed: TaskFeed) -> None:
        """What was known before stays until the last part has come; only then is anybody told. So what began with a
        token of a task in a later part goes on.
        """
        heard: list[str] = []
        feed.on_news(heard.append)
        verifier = TaskVerifier(client, AUDIENCE, feed=feed)
        good = tokens.verify(token(KEY), keys=feed.keys, issuer=ISSUER, audience=AUDIENCE, now=datetime.now(UTC))
        waiting = asyncio.create_task(verifier.wait_over(good))
        agent.push("WatchTasks", delta(live("t0")), snapshot([KEY], live("t2"), more=True), part(live("t3"), more=True))
        await until(lambda: feed._coming is not None and feed._coming.tasks.lookup("t3") is not None)
        assert (TaskKnown(5, True, ""), None, ["t0"]) == (feed.lookup("t1"), feed.lookup("t2"), heard)
        agent.push("WatchTasks", part(live("t1", 5)))
        await until(lambda: feed.lookup("t2") is not None)
        assert (None, ["t0", ""]) == (feed.lookup("t0"), heard)
        await idle()
        assert not waiting.done()
        agent.push("WatchTasks", snapshot([KEY], live("t2")))
        async with asyncio.timeout(WAIT_SECONDS):
            assert "nothing is heard of it any more" in await waiting

    @pytest.mark.parametrize("then", [heartbeat(), delta(live("t3")), part(live("t3"), epoch=2), None])
    async def test_broken_off(self, agent: ScriptedAgent, feed: TaskFeed, then: pb.TaskFeed | None) -> None:
        """Parts that break off are no snapshot: nothing is fresh until there is a whole one."""
        agent.push("WatchTasks", snapshot([KEY], live("t2"), more=True), then)
        await until(lambda: not feed.fresh)
        assert feed.lookup("t2") is None
        agent.push("WatchTasks", None, snapshot([KEY], live("t4")))
        await feed.wait_ready(5)
        assert (None, None) == (feed.lookup("t2"), feed.lookup("t3"))
        assert feed.lookup("t4") is not None

    async def test_no_sign_of_life(self, agent: ScriptedAgent, feed: TaskFeed, boot: Boot) -> None:
        """A part does not keep fresh what was known before it."""
        boot.seconds += STALE_SECONDS - 0.1
        agent.push("WatchTasks", snapshot([KEY], live("t2"), more=True))
        await until(lambda: feed._coming is not None)
        boot.seconds += 0.1
        assert not feed.fresh


class TestSteady:
    async def test_read_late(self, agent: ScriptedAgent, feed: TaskFeed, boot: Boot) -> None:
        """What lay unread, as while the process was stopped, does not set the agent's steady clock back: tokens that
        have ended in the meantime stay so.
        """
        agent.push("WatchTasks", heartbeat(steady=5_000))
        await until(lambda: feed.steady is not None)
        boot.seconds += 10
        agent.push("WatchTasks", heartbeat(steady=5_001), delta(live("t2")))
        await until(lambda: feed.lookup("t2") is not None)
        assert feed.steady == 5_010
        agent.push("WatchTasks", snapshot([KEY], live("t3"), steady=5_002))
        await until(lambda: feed.lookup("t3") is not None)
        assert feed.steady == 5_010
        agent.push("WatchTasks", heartbeat(steady=5_011))  # the message before it had been late already
        await until(lambda: feed.steady == 5_011)

    async def test_measured_anew(self, agent: ScriptedAgent, feed: TaskFeed) -> None:
        """A new stream, and a new epoch, measure it anew: the agent's machine may have stood still, or be another."""
        agent.push("WatchTasks", heartbeat(steady=5_000))
        await until(lambda: feed.steady == 5_000)
        agent.push("WatchTasks", snapshot([KEY], live("t2"), steady=70, epoch=2))
        await until(lambda: feed.steady == 70)
        agent.push("WatchTasks", None)
        await until(lambda: not feed.fresh)
        agent.push("WatchTasks", snapshot([KEY], live("t2"), steady=60, epoch=2))
        await feed.wait_ready(5)
        assert feed.steady == 60
