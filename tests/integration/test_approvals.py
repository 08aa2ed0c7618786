"""Someone must agree: requests, decisions, and broken glass, with a real agent and callers of several users."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import grpc
import pytest
from harness import approvals as room
from harness.agent import COMMAND, AgentProcess, becoming
from harness.approvals import BOSS, BOSS_UID, approval_agent, ask, records, state_of
from harness.callers import Caller
from harness.exchanges import form, post
from harness.looking import until
from harness.taskagent import ISSUER, OTHER_UID, PLACE_A, STRANGER_UID, TRIAGE
from harness.taskcalls import Feed, TaskStream, unary
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.errors import ApprovalExpired

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with approval_agent() as running:
        yield running


@pytest.fixture
def caller(agent: AgentProcess) -> Iterator[Caller]:
    with Caller(agent.socket, uid=OTHER_UID) as other:
        yield other


def as_user(agent: AgentProcess, uid: int, *arguments: str) -> "subprocess.Popen[str]":
    """Run the command as another user."""
    return subprocess.Popen(
        [*becoming(uid), *COMMAND, *arguments],
        env=agent.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def on_terminal(agent: AgentProcess, argv: Sequence[str], typed: str) -> tuple[int, str]:
    """The exit status of a command whose terminal this is, and all that it showed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(argv, env=agent.environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = b""
        with suppress(OSError):  # what Linux says at the end of a terminal
            while read := os.read(ours, 4096):
                shown += read
        os.close(ours)
    return process.returncode, shown.decode()


class TestStream:
    def test_approved(self, agent: AgentProcess, caller: Caller) -> None:
        """The operator sees what is asked, agrees, and the task is there, with a token that services take."""
        with Feed(agent.socket, [PLACE_A]) as feed:
            feed.hear("snapshot")
            asked = ask(caller, params={"amount": "7"})
            (shown,) = agent.json("approval", "list")["approvals"]
            assert (asked["approval"], asked["digest"], "asked", TRIAGE, {"amount": "7"}) == (
                shown["id"],
                shown["digest"],
                shown["type"],
                shown["spiffe_id"],
                shown["params"],
            )
            assert (OTHER_UID, caller.pid, ["operator"], []) == (
                shown["requester"]["uid"],
                shown["requester"]["pid"],
                shown["approvers"],
                shown["given"],
            )
            assert "python" in shown["program"]
            decided = agent.json("approval", "approve", asked["approval"], "--reason", "go on")
            assert ("approve", "active", asked["id"]) == (decided["verdict"], decided["state"], decided["task"])
            assert "active" == caller.hear("task")["state"]
            assert feed.delta(asked["id"], live=True)
        token = caller.ask("token", task=asked["id"])["token"]
        with SyncClient(agent.socket) as client:
            assert client.validate_token(token, PLACE_A, "doc:write").valid
        (decision,) = records(agent, asked["id"], "approval_decided")
        assert (os.getuid(), "operator", "go on") == (decision["by_uid"], decision["by_role"], decision["reason"])
        assert [] == room.approvals(agent)

    def test_denied(self, agent: AgentProcess, caller: Caller) -> None:
        """The holder hears that it was denied, and in which words; the task is over."""
        asked = ask(caller)
        done = agent.run("approval", "deny", asked["approval"], "--reason", "not on a Friday")
        assert "revoked" in done.stdout
        heard = caller.hear("error")
        assert ("ApprovalDenied", True) == (heard["kind"], "not on a Friday" in heard["message"])
        assert ("revoked", "approval_denied") == state_of(agent, asked["id"])

    @pytest.mark.forked
    def test_nobody_decides(self, agent: AgentProcess, caller: Caller) -> None:
        """After its time a request is over, and the holder hears so."""
        asked = ask(caller, "hurried")
        assert "ApprovalExpired" == caller.hear("error")["kind"]
        assert ("expired", "approval_expired") == state_of(agent, asked["id"])
        assert "not_found" == room.decide(agent, asked)

    def test_by_amount(self, agent: AgentProcess, caller: Caller) -> None:
        """Where the type says from which amount on somebody must agree, nobody is asked below it; and an operator hears
        beforehand and with the request why he is asked.
        """
        caller.tell("begin", type="over", params={"amount": "5000"})
        begun = caller.hear("task", "pending", "error")
        assert "active" == state_of(agent, begun["id"])[0]
        (said,) = records(agent, begun["id"], "task_begun")
        assert "context.params has amount && context.params.amount > 5000" == said["no_approval_unless"]
        with Caller(agent.socket, uid=OTHER_UID) as other:
            asked = ask(other, "over", params={"amount": "5001"})
            assert (
                "pending",
                "context.params.amount > 5000" in agent.run("approval", "show", asked["approval"]).stdout,
            ) == (
                state_of(agent, asked["id"])[0],
                True,
            )
            assert "active" == room.decide(agent, asked)
        question = ("over", "--workload", TRIAGE, "--action", "doc:write", "--resource", PLACE_A)
        for amount, needed in ((5000, "needs no approval"), (5001, "needs approval")):
            assert needed in agent.run("policy", "explain", *question, "--param", f"amount={amount}").stdout

    def test_events(self, agent: AgentProcess) -> None:
        """The stream says pending first; it completes a request as it completes a task."""
        stream = TaskStream(agent.socket)
        stream.send(begin=pb.BeginTaskRequest(type="asked"))
        pending = stream.hear().pending
        assert ("pending", 1, 0, ["operator"]) == (
            pending.state,
            pending.approval.needed,
            pending.approval.given,
            list(pending.approval.approvers),
        )
        stream.send(complete=pb.Complete())
        assert ("completed", "cancelled") == ((ended := stream.hear().ended).state, ended.reason)

    def test_two_people(self, agent: AgentProcess, caller: Caller) -> None:
        """Of two who must agree the first is counted, and the request waits on: the same person cannot be both."""
        asked = ask(caller, "two-people")
        first = agent.json("approval", "approve", asked["approval"])
        assert ("pending", 1, 2) == (first["state"], first["given"], first["needed"])
        assert asked["approval"] == caller.hear("pending")["approval"]
        assert "already_exists" == room.decide(agent, asked)
        assert "pending" == state_of(agent, asked["id"])[0]
        room.decide(agent, asked, "deny")
        assert "ApprovalDenied" == caller.hear("error")["kind"]

    @pytest.mark.skipif(not room.can_log_in(), reason="this kernel has no login users")
    def test_two_logins(self, agent: AgentProcess, caller: Caller) -> None:
        """Two who work as the same user, but logged in as themselves, are two people."""
        asked = ask(caller, "two-people")
        for login_uid, state in ((4711, "pending"), (4712, "active")):
            done = room.as_login(login_uid, agent, "approval", "approve", asked["approval"], "--output", "json")
            assert 0 == done.returncode, done.stderr
            assert state == state_of(agent, asked["id"])[0]
        (begun,) = records(agent, asked["id"], "task_begun")
        assert [4711, 4712] == [each["login_uid"] for each in begun["approved_by"]]


class TestProcess:
    def test_waits(self, agent: AgentProcess, caller: Caller) -> None:
        """A process-bound task is answered at once; tokens are refused until someone has agreed, and WaitTask waits."""
        begun = caller.ask("begin_process", type="asked", approve_wait=0)
        assert "pending" == begun["state"]
        refused = caller.ask("token", task=begun["id"])
        (shown,) = room.approvals(agent)
        assert ("approval_required", "ApprovalRequired") == (refused["code"], refused["kind"])
        assert shown.id in refused["message"]
        caller.tell("wait", task=begun["id"])
        assert "active" == room.decide(agent, {"approval": shown.id, "digest": shown.digest})
        assert "active" == caller.hear("task")["state"]
        assert caller.ask("token", task=begun["id"])["token"]

    def test_taken_back(self, agent: AgentProcess) -> None:
        """Whoever waits no more takes the request back, from SDK and command."""
        with SyncClient(agent.socket) as client, pytest.raises(ApprovalExpired, match=r"within 0\.2 s"):
            client.begin_task("asked", approve_wait=0.2)
        assert [] == room.approvals(agent)
        with SyncClient(agent.socket) as client, pytest.raises(ApprovalExpired), client.task("asked", approve_wait=0.2):
            pass

    def test_is_its_callers_alone(self, agent: AgentProcess, caller: Caller) -> None:
        """Another process neither waits for a pending task nor learns of it."""
        begun = caller.ask("begin_process", type="asked", approve_wait=0)
        with Caller(agent.socket, uid=OTHER_UID) as stranger:
            foreign, unknown = (stranger.ask("wait", task=name) for name in (begun["id"], "tsk_none"))
            assert ("not_found", foreign["message"]) == (foreign["code"], unknown["message"])
        caller.ask("complete", task=begun["id"])
        assert ("completed", "cancelled") == state_of(agent, begun["id"])

    def test_a_repeated_request_is_one(self, agent: AgentProcess) -> None:
        """A request that is repeated under its key waits once."""
        with SyncClient(agent.socket) as client:
            first, second = (client.begin_task("asked", approve_wait=0, idempotency_key="k") for _ in range(2))
            assert (first.id, 1) == (second.id, len(room.approvals(agent)))
            first.complete()


class TestCommand:
    @pytest.mark.forked
    def test_task_run(self, agent: AgentProcess) -> None:
        """`task run` says what it waits for, runs the command once approved, and passes its exit status on."""
        running = as_user(
            agent, OTHER_UID, "task", "run", "--type", "asked", "--approve-wait", "1m", "--", "sh", "-c", "exit 7"
        )
        assert running.stderr is not None
        said = running.stderr.readline()
        (shown,) = room.approvals(agent)
        assert ("operator" in said, shown.id in said, running.poll()) == (True, True, None)
        room.decide(agent, {"approval": shown.id, "digest": shown.digest})
        running.communicate(timeout=60)
        assert 7 == running.returncode

    @pytest.mark.parametrize("command", [["run"], ["begin", "--holder-pid", "{pid}"]])
    def test_interrupted(self, agent: AgentProcess, command: list[str]) -> None:
        """Ctrl-C while it waits takes the request back; the command is not run."""
        holder = subprocess.Popen(["sleep", "60"])
        try:
            verb, *options = command
            arguments = ["task", verb, "--type", "asked", *(each.format(pid=os.getpid()) for each in options)]
            running = subprocess.Popen(
                [*COMMAND, *arguments, *(["--", "echo", "ran"] if verb == "run" else [])],
                env=agent.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert running.stderr is not None
            assert "waits" in running.stderr.readline()
            (shown,) = room.approvals(agent)
            running.send_signal(signal.SIGINT)
            said, _ = running.communicate(timeout=60)
        finally:
            holder.kill()
            holder.wait()
        assert (True, "") == (running.returncode != 0, said)
        assert state_of(agent, shown.task_id)[0] in {"revoked", "completed"}

    def test_show_and_unknown(self, agent: AgentProcess, caller: Caller) -> None:
        """`show` tells all of a request; of one that is unknown each command says so and exits with 1."""
        asked = ask(caller, params={"amount": "7"})
        text = agent.run("approval", "show", asked["approval"]).stdout
        assert all(each in text for each in ('"7"', TRIAGE, f"uid {OTHER_UID}", asked["digest"], "doc:read"))
        wrong = agent.run(
            "approval", "approve", asked["approval"], "--digest", "0" * 64, "--output", "json", check=False
        )
        assert "failed_precondition" == room.error_of(wrong)
        room.decide(agent, asked, "deny")
        for verb in ("show", "approve", "deny"):
            done = agent.run("approval", verb, asked["approval"], "--output", "json", check=False)
            assert (1, "not_found") == (done.returncode, room.error_of(done))

    def test_a_terminal_is_asked(self, agent: AgentProcess, caller: Caller) -> None:
        """On a terminal `approve` shows the request and asks: without a yes nothing is decided, with --yes it is not
        asked.
        """
        asked = ask(caller)
        approve = (*COMMAND, "approval", "approve", asked["approval"])
        status, said = on_terminal(agent, approve, "n\n")
        assert (1, True, True, True) == (
            status,
            asked["digest"] in said,
            "agree to this?" in said,
            "nothing was decided" in said,
        )
        assert 1 == on_terminal(agent, approve, "\x04")[0]  # the end of what is typed is no yes
        assert "pending" == state_of(agent, asked["id"])[0]
        assert 0 == on_terminal(agent, approve, "y\n")[0]
        assert "active" == caller.hear("task")["state"]
        with Caller(agent.socket, uid=OTHER_UID) as other:
            status, said = on_terminal(agent, (*COMMAND, "approval", "approve", ask(other)["approval"], "--yes"), "")
            assert (0, False) == (status, "agree to this?" in said)

    @pytest.mark.forked
    def test_as_workload(self, agent: AgentProcess, caller: Caller) -> None:
        """A workload that the type lists decides through the public socket; the operator does not."""
        asked = ask(caller, "boss")
        assert "policy_denied" == room.decide(agent, asked)
        stranger = as_user(agent, STRANGER_UID, "approval", "list", "--as-workload")
        assert "nothing waits for approval\n" == stranger.communicate(timeout=60)[0]
        boss = as_user(agent, BOSS_UID, "approval", "approve", asked["approval"], "--as-workload")
        said, _ = boss.communicate(timeout=60)
        assert (0, True) == (boss.returncode, "is active" in said)
        (decision,) = records(agent, asked["id"], "approval_decided")
        assert (BOSS, BOSS_UID) == (decision["by_role"], decision["by_uid"])


class TestBrokenGlass:
    def test_from_the_alarm_to_the_review(self, agent: AgentProcess, caller: Caller) -> None:
        """Breaking the glass is loud, a review is owed, and the next is refused until someone else has looked."""
        asked = ask(caller, "glass")
        room.decide(agent, asked)
        caller.hear("task")
        status = agent.run("status").stdout
        assert f"BREAK-GLASS is active: task {asked['id']}" in status
        loud = [line for line in agent.log_lines() if line["event"] == "break_glass"]
        assert [("warning", asked["id"])] == [(line["level"], line["task_id"]) for line in loud]
        with Caller(agent.socket, uid=OTHER_UID) as second:
            assert "review_owed" == ask(second, "glass")["code"]
            early = agent.run("review", "done", asked["id"], "--finding", "too early", "--output", "json", check=False)
            assert "failed_precondition" == room.error_of(early)
            caller.ask("complete", task=asked["id"])
            owed = agent.json("review", "list")["reviews"]
            assert [(asked["id"], OTHER_UID, False)] == [(each["task"], each["uid"], each["live"]) for each in owed]
            assert "review owed" in agent.run("status").stdout
            done = [each["event"] for each in agent.json("review", "show", asked["id"])["records"]]
            assert ["approval_decided", "break_glass_begun", "task_ended"] == done
            agent.run("review", "done", asked["id"], "--finding", "a disk was cleared")
            assert "pending" == ask(second, "glass")["event"]
        assert ["a disk was cleared"] == [each["finding"] for each in records(agent, asked["id"], "review_done")]
        assert [asked["id"]] == [each["task"] for each in records(agent, asked["id"], "break_glass_begun")]


def attached(caller: Caller, task: str) -> str:
    """The state of a task that its holder comes back to; empty while the agent does not answer."""
    caller.tell("attach", task=task)
    answer = caller.hear("task", "error")
    return "" if answer.get("code") in {"unavailable", "unreachable"} else str(answer.get("state", answer))


class TestRestart:
    @pytest.mark.forked
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_what_outlives_the_agent(self, number: int) -> None:
        """A review that is owed does; a request that waits does not, and cannot be approved by the next run."""
        with room.make_approval_agent() as agent, Caller(agent.socket, uid=OTHER_UID) as caller:
            room.register(agent)
            glass = ask(caller, "glass")
            room.decide(agent, glass)
            caller.hear("task")
            waiting = caller.ask("begin_process", type="asked", approve_wait=0)
            approved = caller.ask("begin_process", type="asked", approve_wait=0)
            newest = room.approvals(agent)[-1]
            room.decide(agent, {"approval": newest.id, "digest": newest.digest})
            agent.stop(number)
            agent.start()
            assert "active" == until(lambda: attached(caller, approved["id"]), "the agent answers")
            assert [] == room.approvals(agent)
            ended = [each["reason"] for each in records(agent, waiting["id"], "task_ended")]
            assert ["agent_stopped" if number == signal.SIGTERM else "agent_restart"] == ended
            assert [glass["id"]] == [each["task"] for each in agent.json("review", "list")["reviews"]]

    def test_a_class(self) -> None:
        """`approval_classes` makes all types of a class wait for an operator, and no others."""
        with room.make_approval_agent() as agent:
            agent.config.write_text(agent.config.read_text().replace("[tasks]", '[tasks]\napproval_classes = ["high"]'))
            agent.stop()
            agent.start()
            room.register(agent)
            with SyncClient(agent.socket) as client:
                careful = client.begin_task("careful", approve_wait=0)
                assert ("pending", ("operator",)) == (careful.state, careful.status.approval.approvers)
                assert "active" == client.begin_task("two-places").state


def test_an_exchange(agent: AgentProcess) -> None:
    """The token endpoint does not wait: it says what is waited for, and says so again to the request with `task_id`."""
    with SyncClient(agent.socket) as client:
        subject = client.fetch_jwt_svid(ISSUER).token
        details = json.dumps([{"type": "asked", "actions": ["doc:read"], "locations": [PLACE_A]}])
        fields = form(subject, audience=PLACE_A, authorization_details=details)
        bare = post(agent.socket, fields).json()
        assert ("authorization_pending", "authorization_pending") == (bare["error"], bare["code"])
        (shown,) = room.approvals(agent)
        again = post(agent.socket, {**fields, "task_id": bare["task_id"]}).json()
        assert ("authorization_pending", bare["task_id"]) == (again["error"], again["task_id"])
        assert bare["task_id"] == shown.task_id
        client.complete_task(bare["task_id"])

        task = client.begin_task("asked", approve_wait=0)
        waiting = post(agent.socket, {**fields, "task_id": task.id}).json()
        assert ("authorization_pending", task.id) == (waiting["error"], waiting["task_id"])
        task.complete()
    assert [] == room.approvals(agent)


def test_an_exchange_by_amount(agent: AgentProcess) -> None:
    """A bare exchange gets its token at once where nobody must agree, and waits where somebody must."""
    with SyncClient(agent.socket) as client:
        subject = client.fetch_jwt_svid(ISSUER).token

        def exchanged(amount: int) -> dict[str, Any]:
            grant = {"type": "over", "actions": ["doc:read"], "locations": [PLACE_A], "params": {"amount": amount}}
            answer = post(agent.socket, form(subject, audience=PLACE_A, authorization_details=json.dumps([grant])))
            return dict(answer.json())

        assert client.validate_token(exchanged(5000)["access_token"], PLACE_A, "doc:read").valid
        waits = exchanged(5001)
        assert "authorization_pending" == waits["error"]
        client.complete_task(waits["task_id"])


def test_the_status_of_a_refusal(agent: AgentProcess) -> None:
    """On the wire a token that must wait is FAILED_PRECONDITION."""
    with SyncClient(agent.socket) as client:
        task = client.begin_task("asked", approve_wait=0)
        with pytest.raises(grpc.RpcError) as refused:
            unary(
                agent.socket,
                "/sojourn.v1.Tasks/GetToken",
                pb.GetTokenRequest(task_id=task.id),
                pb.GetTokenResponse,
            )
        assert ("FAILED_PRECONDITION", ("sojourn-code", "approval_required")) == (
            refused.value.code().name,
            next(each for each in refused.value.trailing_metadata() if each[0] == "sojourn-code"),
        )
        task.complete()
