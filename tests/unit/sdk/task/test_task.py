"""Tasks on their stream, and tasks of a process."""

import asyncio
from pathlib import Path

import grpc
import pytest
from fakes.fake_agent import Fail, ScriptedAgent
from fakes.task_messages import BEGUN, GRANT, denied, ended, pending, task
from harness.looking import WAIT_SECONDS
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.errors import (
    ApprovalDenied,
    ApprovalExpired,
    ApprovalRequired,
    InvalidInput,
    PolicyDenied,
    SojournError,
    TaskOver,
    Unavailable,
)
from sojourn.sdk.client.client import Client

GOING = Fail(grpc.StatusCode.UNAVAILABLE, "the agent is shutting down", "unavailable")
ATTACHED = pb.TaskEvent(attached=task(version=6))


class TestStream:
    async def test_completed(self, agent: ScriptedAgent, client: Client) -> None:
        """Leaving the block completes the task, and its end is awaited."""
        agent.answers["complete"] = ended("completed")
        agent.push("RunTask", BEGUN)
        async with (
            asyncio.timeout(WAIT_SECONDS),
            client.task("triage-ticket", params={"n": "7"}, grants=[GRANT]) as running,
        ):
            assert (running.id, running.state, running.grants, running.ended) == ("t1", "active", (GRANT,), False)
        assert (running.ended, running.state) == (True, "completed")
        command = agent.task_commands.get_nowait()
        assert (command.HasField("complete"), command.complete.failed) == (True, False)
        begin = agent.requests[0][1].begin
        assert (begin.type, dict(begin.params), len(begin.grants)) == ("triage-ticket", {"n": "7"}, 1)
        assert agent.metadata[0]["workload.spiffe.io"] == "true"

    async def test_typed_parameters(self, agent: ScriptedAgent, client: Client) -> None:
        """Parameters are values as their type has them, and what is none is refused before anything is sent."""
        agent.answers["complete"] = ended("completed")
        agent.push("RunTask", BEGUN)
        async with (
            asyncio.timeout(WAIT_SECONDS),
            client.task("triage-ticket", params={"cents": 2500, "urgent": True, "n": "7"}),
        ):
            begin = agent.requests[0][1].begin
            assert {"cents": "2500", "urgent": "true", "n": "7"} == dict(begin.params)
        for wrong in (2.5, None, [1], b"7"):
            with pytest.raises(InvalidInput, match="'cents'"):
                async with client.task("triage-ticket", params={"cents": wrong}):  # type: ignore[dict-item]
                    pass
        assert 1 == len(agent.requests)

    async def test_failed(self, agent: ScriptedAgent, client: Client) -> None:
        """An exception that leaves the block ends the task as failed, and is raised as it is."""
        agent.answers["complete"] = ended("completed", "failed")
        agent.push("RunTask", BEGUN)
        with pytest.raises(KeyError):
            async with asyncio.timeout(WAIT_SECONDS), client.task("triage-ticket"):
                raise KeyError
        assert agent.task_commands.get_nowait().complete.failed

    async def test_token(self, agent: ScriptedAgent, client: Client) -> None:
        """A token is for the resource and actions asked for, and its repr hides it."""
        agent.push("RunTask", BEGUN)
        agent.answers["GetToken"] = pb.GetTokenResponse(
            access_token="secret", expires_at=1, resource=GRANT.resource, actions=GRANT.actions
        )
        async with asyncio.timeout(WAIT_SECONDS), client.task("triage-ticket") as running:
            token = await running.token(GRANT.resource, ["ticket:read"])
            agent.push("RunTask", ended("completed"))
        assert (token.token, token.header, token.actions) == ("secret", "Bearer secret", ("ticket:read",))
        assert "secret" not in f"{token!r} {token}"
        request = agent.requests[1][1]
        assert ("t1", GRANT.resource, ["ticket:read"]) == (request.task_id, request.resource, list(request.actions))

    async def test_revoked(self, agent: ScriptedAgent, client: Client) -> None:
        """A revocation is heard at once, with its reason; no token is asked for after it."""
        agent.push("RunTask", BEGUN)
        async with asyncio.timeout(WAIT_SECONDS), client.task("triage-ticket") as running:
            agent.push("RunTask", pb.TaskEvent(changed=task("suspended")), ended("revoked", "operator said so"), None)
            await running.wait_ended()
            assert (running.ended, running.state, running.reason) == (True, "revoked", "operator said so")
            with pytest.raises(TaskOver, match="operator said so"):
                await running.token()
        assert len(agent.requests) == 1

    async def test_agent_gone(self, agent: ScriptedAgent, socket: Path) -> None:
        """When the stream breaks and no agent comes back the task is lost, and leaving the block says nothing more."""
        agent.push("RunTask", BEGUN, *[Fail(grpc.StatusCode.UNAVAILABLE, "going")] * 2)
        impatient = Client(str(socket), patience_seconds=0)
        async with asyncio.timeout(WAIT_SECONDS), impatient as client, client.task("triage-ticket") as running:
            await running.wait_ended()
            assert (running.state, running.reason) == ("lost", "going")
        assert agent.requests[1][1].attach.task_id == "t1"

    async def test_completed_by_hand(self, agent: ScriptedAgent, client: Client) -> None:
        """A task may be completed before its block ends, twice too."""
        agent.push("RunTask", BEGUN, ended("completed"))
        async with asyncio.timeout(WAIT_SECONDS), client.task("triage-ticket") as running:
            await running.complete(failed=True)
            await running.complete()
            assert running.state == "completed"

    async def test_denied(self, agent: ScriptedAgent, client: Client) -> None:
        """A refusal of policy is raised on entering."""
        agent.push("RunTask", Fail(grpc.StatusCode.PERMISSION_DENIED, "outside hours", "policy_denied"))
        with pytest.raises(PolicyDenied, match="outside hours"):
            async with client.task("triage-ticket"):
                pytest.fail("entered")

    @pytest.mark.parametrize("first", [None, ended("revoked")])
    async def test_not_begun(self, agent: ScriptedAgent, client: Client, first: pb.TaskEvent | None) -> None:
        """A stream that does not begin with `begun` is no task."""
        agent.push("RunTask", first)
        with pytest.raises(Unavailable):
            async with client.task("triage-ticket"):
                pytest.fail("entered")


class TestRestart:
    async def test_attached(self, agent: ScriptedAgent, client: Client) -> None:
        """When the agent restarts the task is had back by a stream that names it, and is completed on that one."""
        agent.answers["complete"] = ended("completed")
        agent.push("RunTask", BEGUN, GOING)
        async with asyncio.timeout(WAIT_SECONDS), client.task("triage-ticket") as running:
            while len(agent.requests) < 2:
                await asyncio.sleep(0.01)
            assert (running.state, running.ended) == ("active", False)
            agent.push("RunTask", ATTACHED)
            while running.status.version == BEGUN.begun.version:
                await asyncio.sleep(0.01)
        assert (running.state, running.status.version) == ("completed", 5)
        assert [each[1].WhichOneof("command") for each in agent.requests] == ["begin", "attach"]
        assert agent.requests[1][1].attach.task_id == "t1"

    async def test_an_agent_that_is_slow_to_come(self, agent: ScriptedAgent, client: Client) -> None:
        """Nobody there, one that is shutting down, one that is full: it is tried again."""
        agent.push("RunTask", BEGUN, GOING, GOING, None, Fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full"), ATTACHED)
        async with asyncio.timeout(WAIT_SECONDS), client.task("triage-ticket") as running:
            while running.status.version == BEGUN.begun.version:
                await asyncio.sleep(0.01)
            assert (len(agent.requests), running.state) == (5, "active")
            agent.push("RunTask", ended("completed"))

    async def test_a_task_that_is_over(self, agent: ScriptedAgent, client: Client) -> None:
        """A task that the new run of the agent does not give back is lost at once, and says why."""
        agent.push("RunTask", BEGUN, GOING, Fail(grpc.StatusCode.NOT_FOUND, "there is no such task", "not_found"))
        async with asyncio.timeout(WAIT_SECONDS), client.task("triage-ticket") as running:
            await running.wait_ended()
            assert (running.state, running.reason) == ("lost", "there is no such task")
            with pytest.raises(TaskOver, match="there is no such task"):
                await running.token()

    async def test_a_token_waits(self, agent: ScriptedAgent, client: Client) -> None:
        """A token that is asked for while there is no agent is asked for again when the task is back."""
        agent.answers["GetToken"] = GOING
        agent.push("RunTask", BEGUN)
        async with asyncio.timeout(WAIT_SECONDS), client.task("triage-ticket") as running:
            asking = asyncio.ensure_future(running.token())
            while len(agent.requests) < 2:
                await asyncio.sleep(0.01)
            agent.answers["GetToken"] = pb.GetTokenResponse(access_token="x")
            agent.push("RunTask", GOING, ATTACHED)
            assert (await asking).token == "x"
            agent.push("RunTask", ended("completed"))
        assert [each[0] for each in agent.requests] == ["RunTask", "GetToken", "RunTask", "GetToken"]

    async def test_a_refusal_does_not(self, agent: ScriptedAgent, client: Client) -> None:
        """What the agent refuses while the task has its stream is told at once."""
        agent.answers["GetToken"] = Fail(grpc.StatusCode.UNAVAILABLE, "disk", "store_failed")
        agent.push("RunTask", BEGUN)
        async with asyncio.timeout(WAIT_SECONDS), client.task("triage-ticket") as running:
            with pytest.raises(Unavailable, match="disk"):
                await running.token()
            agent.answers["GetToken"] = Fail(grpc.StatusCode.FAILED_PRECONDITION, "suspended", "task_not_active")
            with pytest.raises(TaskOver, match="suspended"):
                await running.token()
            agent.push("RunTask", ended("completed"))
        assert [each[0] for each in agent.requests] == ["RunTask", "GetToken", "GetToken"]

    async def test_an_outcome_waits(self, agent: ScriptedAgent, client: Client) -> None:
        """What became of the task is told to the new run of the agent, if its holder said it in between."""
        agent.answers["complete"] = ended("completed", "failure")
        agent.push("RunTask", BEGUN, GOING)
        async with asyncio.timeout(WAIT_SECONDS), client.task("triage-ticket") as running:
            while len(agent.requests) < 2:
                await asyncio.sleep(0.01)
            completing = asyncio.ensure_future(running.complete(failed=True))
            agent.push("RunTask", ATTACHED)
            await completing
            assert (running.state, running.reason) == ("completed", "failure")
        assert agent.task_commands.get_nowait().complete.failed


async def test_attach_task(agent: ScriptedAgent, client: Client) -> None:
    """A process has its task back by naming it."""
    agent.answers["AttachTask"] = task()
    assert (await client.attach_task("t1")).state == "active"
    assert agent.requests == [("AttachTask", pb.AttachTaskRequest(task_id="t1"))]


async def test_process_task(agent: ScriptedAgent, client: Client) -> None:
    """A task of a process is begun, gives tokens, and is completed by calls."""
    agent.answers["BeginTask"] = task()
    agent.answers["GetToken"] = pb.GetTokenResponse(access_token="x")
    agent.answers["CompleteTask"] = task("completed")
    held = await client.begin_task("triage-ticket", holder_pid=42, session=True, max_seconds=9)
    begin = agent.requests[0][1]
    assert (begin.holder_pid, begin.session, begin.max_seconds) == (42, True, 9)
    assert (await held.token()).token == "x"
    await held.complete(failed=True)
    await held.complete()
    assert (held.ended, held.state) == (True, "completed")
    assert [method for method, _ in agent.requests] == ["BeginTask", "GetToken", "CompleteTask"]


OVER: list[tuple[pb.Task, type[SojournError], str]] = [
    (denied("not on a Friday"), ApprovalDenied, "not on a Friday"),
    (denied(), ApprovalDenied, "no reason given"),
    (task("expired", "approval_expired"), ApprovalExpired, "in time"),
    (task("revoked", "policy_changed"), TaskOver, "policy_changed"),
]


class TestApproval:
    async def test_a_stream_waits(self, agent: ScriptedAgent, client: Client) -> None:
        """The block is entered once enough have agreed; each step until then is heard of once."""
        agent.push("RunTask", *(pb.TaskEvent(pending=pending(given)) for given in (0, 0, 1)), BEGUN)
        heard = []
        async with asyncio.timeout(WAIT_SECONDS), client.task("pay", on_pending=heard.append) as running:
            assert running.state == "active"
            agent.answers["complete"] = ended("completed")
        assert [(0, 2), (1, 2)] == [(each.approval.given, each.approval.needed) for each in heard]
        assert ("apr_1", "ab", ("operator",)) == (
            heard[0].approval.id,
            heard[0].approval.digest,
            heard[0].approval.approvers,
        )

    @pytest.mark.parametrize(("over", "error", "words"), OVER)
    async def test_a_stream_that_is_refused(
        self, agent: ScriptedAgent, client: Client, over: pb.Task, error: type[SojournError], words: str
    ) -> None:
        """What was not approved is an error of its own kind, with the approver's words; the block is not entered."""
        agent.push("RunTask", pb.TaskEvent(pending=pending()), pb.TaskEvent(ended=over))
        with pytest.raises(error, match=words):
            async with asyncio.timeout(WAIT_SECONDS), client.task("pay"):
                raise AssertionError("the block was entered")

    async def test_a_stream_that_waits_no_longer(self, agent: ScriptedAgent, client: Client) -> None:
        """After `approve_wait` seconds it is given up."""
        agent.push("RunTask", pb.TaskEvent(pending=pending()))
        with pytest.raises(ApprovalExpired, match="within"):
            async with client.task("pay", approve_wait=0.05):
                raise AssertionError("the block was entered")

    async def test_a_process_waits(self, agent: ScriptedAgent, client: Client) -> None:
        """A task of a process is waited for by calls."""
        agent.answers["BeginTask"], agent.answers["WaitTask"] = pending(), task()
        held = await client.begin_task("pay")
        assert (held.state, ["BeginTask", "WaitTask"]) == ("active", [method for method, _ in agent.requests])

    async def test_a_process_that_does_not_wait(self, agent: ScriptedAgent, client: Client) -> None:
        """With an `approve_wait` of 0 the pending task is returned; a token of it is refused with what it needs."""
        agent.answers["BeginTask"] = pending()
        held = await client.begin_task("pay", approve_wait=0)
        assert (held.state, held.ended) == ("pending", False)
        agent.answers["GetToken"] = Fail(grpc.StatusCode.FAILED_PRECONDITION, "waits", "approval_required")
        with pytest.raises(ApprovalRequired, match="waits"):
            await held.token()

    @pytest.mark.parametrize(("over", "error", "words"), OVER)
    async def test_a_process_that_is_refused(
        self, agent: ScriptedAgent, client: Client, over: pb.Task, error: type[SojournError], words: str
    ) -> None:
        """A task of a process that is refused raises the same errors as one on a stream."""
        agent.answers["BeginTask"], agent.answers["WaitTask"] = pending(), over
        with pytest.raises(error, match=words):
            await client.begin_task("pay")

    async def test_a_process_that_waits_no_longer(self, agent: ScriptedAgent, client: Client) -> None:
        """Whoever stops waiting takes the request back."""
        agent.answers["BeginTask"] = agent.answers["WaitTask"] = pending()
        with pytest.raises(ApprovalExpired):
            await client.begin_task("pay", approve_wait=0.1)
        assert "CompleteTask" == agent.requests[-1][0]
