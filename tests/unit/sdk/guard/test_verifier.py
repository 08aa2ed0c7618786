"""Verification of task tokens: every branch, and each that fails is a refusal."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from fakes.fake_agent import Fail, ScriptedAgent
from fakes.task_feed import AUDIENCE, HOLDER, Boot, delta, heartbeat, live, over, signing_key, snapshot, token
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import InvalidToken
from sojourn.errors.oauth import ActionNotAllowed, ActionUsedUp, WrongParams
from sojourn.sdk.client.client import Client
from sojourn.sdk.guard.task_feed import STALE_SECONDS, TaskFeed
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.tasktoken.request_record import Served

KEY = signing_key()
VALID = pb.ValidateTokenResponse(valid=True, kind=pb.TOKEN_KIND_TASK, spiffe_id=str(HOLDER))


@pytest.fixture
def boot() -> Boot:
    return Boot()


@pytest.fixture
async def verifier(agent: ScriptedAgent, client: Client, boot: Boot) -> AsyncIterator[TaskVerifier]:
    """A verifier whose feed says: t1 lives from version 5 on, gone is over."""
    agent.push("WatchTasks", snapshot([KEY], live("t1", 5), over("gone")))
    async with TaskFeed(client, [AUDIENCE], boot=boot) as feed:
        await feed.wait_ready(5)
        async with TaskVerifier(client, AUDIENCE, feed=feed) as running:
            yield running


def asked(agent: ScriptedAgent) -> int:
    return sum(method == "ValidateToken" for method, _ in agent.requests)


async def reason(verifier: TaskVerifier, text: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        await verifier.verify(text)
    return caught.value.reason_code


class TestHere:
    async def test_live(self, agent: ScriptedAgent, verifier: TaskVerifier) -> None:
        """A token of a live task is good, and the agent is not asked."""
        verified = await verifier.verify(token(KEY), "ticket:read")
        assert (
            verified.spiffe_id,
            verified.task_id,
            verified.actions,
            asked(agent),
        ) == (HOLDER, "t1", ("ticket:read",), 0)

    async def test_over(self, agent: ScriptedAgent, verifier: TaskVerifier) -> None:
        """A token of an ended task is refused with the reason of the end."""
        with pytest.raises(InvalidToken, match="holder is gone") as caught:
            await verifier.verify(token(KEY, "gone"))
        assert (caught.value.reason_code, asked(agent)) == ("task_over", 0)

    async def test_suspended(self, agent: ScriptedAgent, verifier: TaskVerifier) -> None:
        """A token of a suspended task is refused, and nobody says that the task is over."""
        paused = pb.TaskState(id="t1", live=False, suspended=True, version=5, reason="suspended: the shop is closed")
        agent.push("WatchTasks", delta(paused))
        async with asyncio.timeout(20):
            while verifier.feed.lookup("t1").live:
                await asyncio.sleep(0.01)
        with pytest.raises(InvalidToken, match="the task is not active: suspended: the shop is closed") as caught:
            await verifier.verify(token(KEY))
        assert (caught.value.reason_code, asked(agent)) == ("task_over", 0)

    async def test_old_version(self, verifier: TaskVerifier) -> None:
        """A token older than the least version of its task is refused."""
        assert await reason(verifier, token(KEY, version=4)) == "superseded"

    async def test_other_audience(self, agent: ScriptedAgent, verifier: TaskVerifier) -> None:
        """A token for another service is refused without asking."""
        assert await reason(verifier, token(KEY, audience="https://other.example.org")) == "wrong_audience"
        assert asked(agent) == 0

    async def test_expired(self, verifier: TaskVerifier) -> None:
        """An expired token is refused."""
        assert await reason(verifier, token(KEY, seconds=-1)) == "expired"

    async def test_a_clock_that_was_set_back(self, agent: ScriptedAgent, verifier: TaskVerifier) -> None:
        """A token that has lived for its time by the agent's steady clock is refused, whatever the wall clock says."""
        agent.push("WatchTasks", heartbeat(steady=1_000))
        async with asyncio.timeout(20):
            while verifier.feed.steady is None:
                await asyncio.sleep(0.01)
        assert await reason(verifier, token(KEY, steady=900)) == "expired"
        assert (await verifier.verify(token(KEY, steady=1_000))).task_id == "t1"

    async def test_forged(self, verifier: TaskVerifier) -> None:
        """A token signed by another key of the same name is refused."""
        assert await reason(verifier, token(signing_key("k1"))) == "bad_signature"

    async def test_action(self, verifier: TaskVerifier) -> None:
        """A good token without the action is not allowed to do it; names are compared byte for byte."""
        for action in ("ticket:write", "Ticket:read", ""):
            with pytest.raises(ActionNotAllowed):
                await verifier.verify(token(KEY), action)


class TestAsked:
    async def test_unknown_task(self, agent: ScriptedAgent, verifier: TaskVerifier) -> None:
        """Of a task that the feed does not know the agent is asked once, and its yes is taken."""
        agent.answers["ValidateToken"] = VALID
        assert (await verifier.verify(token(KEY, "new"), "ticket:read")).task_id == "new"
        assert asked(agent) == 1

    async def test_unknown_key(self, agent: ScriptedAgent, verifier: TaskVerifier) -> None:
        """A token by a key that a fresh feed does not know is refused, and the agent is not bothered."""
        agent.answers["ValidateToken"] = VALID
        assert await reason(verifier, token(signing_key("k2"))) == "unknown_key"
        assert asked(agent) == 0

    async def test_stale(self, agent: ScriptedAgent, verifier: TaskVerifier, boot: Boot) -> None:
        """With a stale feed the agent is asked, also of a task that was live."""
        boot.seconds += STALE_SECONDS
        agent.answers["ValidateToken"] = pb.ValidateTokenResponse(valid=False, code="task_over", reason="it is over")
        assert await reason(verifier, token(KEY)) == "task_over"
        agent.answers["ValidateToken"] = VALID
        assert (await verifier.verify(token(KEY))).task_id == "t1"

    async def test_stale_and_action(self, agent: ScriptedAgent, verifier: TaskVerifier, boot: Boot) -> None:
        """The agent's yes does not widen the actions."""
        boot.seconds += STALE_SECONDS
        agent.answers["ValidateToken"] = VALID
        with pytest.raises(ActionNotAllowed):
            await verifier.verify(token(KEY), "ticket:write")

    @pytest.mark.parametrize(
        "answer",
        [
            Fail(grpc.StatusCode.UNAVAILABLE, "away"),
            Fail(grpc.StatusCode.INTERNAL),
            Fail(grpc.StatusCode.INVALID_ARGUMENT),
            pb.ValidateTokenResponse(),
            pb.ValidateTokenResponse(valid=True),
            pb.ValidateTokenResponse(valid=True, kind=pb.TOKEN_KIND_JWT_SVID),
            pb.ValidateTokenResponse(valid=True, kind=pb.TOKEN_KIND_TASK, spiffe_id="nonsense"),
        ],
    )
    async def test_fails_closed(self, agent: ScriptedAgent, verifier: TaskVerifier, boot: Boot, answer: object) -> None:
        """Whatever but a clear yes for a task token is a refusal."""
        boot.seconds += STALE_SECONDS
        agent.answers["ValidateToken"] = answer
        await reason(verifier, token(KEY))

    async def test_own_eyes(self, agent: ScriptedAgent, verifier: TaskVerifier, boot: Boot) -> None:
        """Under the agent's yes, times and audience are still looked at."""
        boot.seconds += STALE_SECONDS
        agent.answers["ValidateToken"] = VALID
        assert await reason(verifier, token(KEY, seconds=-1)) == "expired"
        assert await reason(verifier, token(KEY, audience="https://other.example.org")) == "wrong_audience"

    @pytest.mark.parametrize("text", ["", "x", "a.b.c", "é", "\udcff", "." * 20_000])
    async def test_nonsense(self, agent: ScriptedAgent, verifier: TaskVerifier, boot: Boot, text: str) -> None:
        """What is no token is refused, fresh or stale, and never goes out."""
        agent.answers["ValidateToken"] = VALID
        await reason(verifier, text)
        boot.seconds += STALE_SECONDS
        await reason(verifier, text)
        assert asked(agent) == 0


class TestCounted:
    """An action whose uses are counted: the token says that the agent must be asked."""

    @pytest.fixture
    def text(self) -> str:
        """Made when it is needed: it lives for a minute."""
        return token(KEY, actions=("ticket:close", "ticket:read"), asks=("ticket:close",))

    async def test_asked(self, agent: ScriptedAgent, verifier: TaskVerifier, text: str) -> None:
        """The agent is asked before it passes, with its action and that it is a use; of others it is not."""
        agent.answers["ValidateToken"] = VALID
        await verifier.verify(text, "ticket:read")
        assert 0 == asked(agent)
        await verifier.verify(text, "ticket:close")
        ((_, request),) = [each for each in agent.requests if each[0] == "ValidateToken"]
        assert ("ticket:close", True, False) == (request.action, request.use, request.no_action)

    async def test_used_up(self, agent: ScriptedAgent, verifier: TaskVerifier, text: str) -> None:
        """When all uses are made that is the reason, and not that the token is not good."""
        agent.answers["ValidateToken"] = pb.ValidateTokenResponse(code="limit_reached", reason="once, and has done so")
        with pytest.raises(ActionUsedUp, match="has done so"):
            await verifier.verify(text, "ticket:close")

    @pytest.mark.parametrize(
        "answer",
        [
            Fail(grpc.StatusCode.UNAVAILABLE, "away"),
            Fail(grpc.StatusCode.PERMISSION_DENIED, "not a workload of the service"),
            pb.ValidateTokenResponse(valid=True),
            pb.ValidateTokenResponse(code="store_full", reason="there is no room"),
        ],
    )
    async def test_fails_closed(self, agent: ScriptedAgent, verifier: TaskVerifier, answer: object, text: str) -> None:
        """However fresh the feed is: without the agent's clear yes it does not pass."""
        agent.answers["ValidateToken"] = answer
        with pytest.raises(InvalidToken):
            await verifier.verify(text, "ticket:close")

    @pytest.mark.parametrize("counted", [0, 1, 2, 3])
    async def test_a_batch(self, agent: ScriptedAgent, verifier: TaskVerifier, text: str, counted: int) -> None:
        """A batch passes if the agent says that it has counted all of it: one that knows of no batches counts one."""
        answer = pb.ValidateTokenResponse(times=counted)
        answer.MergeFrom(VALID)
        agent.answers["ValidateToken"] = answer
        using = verifier.use(await verifier.examine(text), "ticket:close", served=Served(times=3))
        if counted == 3:
            await using
        else:
            with pytest.raises(InvalidToken, match="3 times"):
                await using
        ((_, request),) = [each for each in agent.requests if each[0] == "ValidateToken"]
        assert 3 == request.served.times

    async def test_nobody_says_which(self, agent: ScriptedAgent, verifier: TaskVerifier, text: str) -> None:
        """A token with such an action is not good for a service that does not say for which action it is."""
        with pytest.raises(WrongParams):
            await verifier.verify(text)
        assert 0 == asked(agent)

    async def test_for_no_action(self, agent: ScriptedAgent, verifier: TaskVerifier, text: str) -> None:
        """What is for no action of the task's, as a greeting of MCP, spends no use: a token of class high is used up."""
        agent.answers["ValidateToken"] = VALID
        await verifier.use(await verifier.examine(text), None)
        assert 0 == asked(agent)
        high = token(KEY, actions=("ticket:close",), asks=("ticket:close",), task_class="high")
        await verifier.use(await verifier.examine(high), None)
        ((_, request),) = [each for each in agent.requests if each[0] == "ValidateToken"]
        assert ("", True, True) == (request.action, request.use, request.no_action)


async def test_why_a_feed_is_stale(agent: ScriptedAgent, client: Client) -> None:
    """Whoever asks why a token of class high is refused is led to what the agent said of the feed."""
    agent.push("WatchTasks", Fail(grpc.StatusCode.PERMISSION_DENIED, "listen.allowed does not name it", "refused"))
    async with TaskVerifier(client, AUDIENCE) as verifier:
        with pytest.raises(InvalidToken) as caught:
            await verifier.verify(token(KEY, task_class="high"))
    assert ("stale_feed", "listen.allowed does not name it") == (caught.value.reason_code, str(caught.value.__cause__))


async def test_own_feed(agent: ScriptedAgent, client: Client) -> None:
    """Without a feed of another's the verifier follows its own."""
    agent.push("WatchTasks", snapshot([KEY], live("t1", 5)))
    async with TaskVerifier(client, AUDIENCE) as verifier:
        await verifier.feed.wait_ready(5)
        assert (await verifier.verify(token(KEY))).task_id == "t1"
    assert not verifier.feed.fresh


async def test_wall_clock(agent: ScriptedAgent, client: Client) -> None:
    """The wall clock is the caller's to choose."""
    agent.push("WatchTasks", snapshot([KEY], live("t1", 5)))
    async with TaskVerifier(client, AUDIENCE, now=lambda: datetime.now(UTC) + timedelta(hours=1)) as verifier:
        await verifier.feed.wait_ready(5)
        assert await reason(verifier, token(KEY)) == "expired"
