"""Operators see tasks and stop them: suspended, resumed, revoked, switched off, by ID, type, workload and selector."""

import json
import os
import re
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from harness.agent import COMMAND, AgentProcess
from harness.callers import Caller
from harness.looking import until
from harness.taskagent import OTHER_UID, PLACE_A, PLACE_B, TICKETS, TRIAGE, make_agent, shared_agent
from harness.taskcalls import Feed, TaskStream
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.errors import ActionOutsideType, NotFound, PolicyDenied, SojournError, TaskOver
from sojourn.tasktoken.grants import Grant


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with shared_agent() as running:
        yield running


@pytest.fixture(scope="module")
def client(agent: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(agent.socket) as opened:
        yield opened


def changed(agent: AgentProcess, *arguments: str) -> dict[str, str]:
    """The states of the tasks that a command has changed, by their IDs."""
    told = agent.json("task", *arguments)
    return {task["id"]: task["state"] for task in told.get("tasks", [told])}


class TestSuspend:
    def test_and_resume(self, agent: AgentProcess, client: SyncClient) -> None:
        """A suspended task's tokens are refused at once and for good; resumed, it gives new ones."""
        with client.task("triage-ticket") as task, Feed(agent.socket, [TICKETS]) as feed:
            feed.hear("snapshot")
            old = task.token().token
            assert {task.id: "suspended"} == changed(agent, "suspend", task.id, "--reason", "looking into it")
            [state] = feed.hear("delta").delta.tasks
            assert (False, True, "suspended: looking into it") == (state.live, state.suspended, state.reason)
            assert not client.validate_token(old, TICKETS).valid
            with pytest.raises(TaskOver, match="looking into it"):
                task.token()
            assert {task.id: "active"} == changed(agent, "resume", task.id)
            assert client.validate_token(task.token().token, TICKETS).valid
            assert not client.validate_token(old, TICKETS).valid

    def test_the_holder_hears(self, agent: AgentProcess) -> None:
        """The stream that is the task tells its holder of each change, and why."""
        stream = TaskStream(agent.socket)
        stream.send(begin=pb.BeginTaskRequest(type="triage-ticket"))
        task = stream.hear().begun
        agent.run("task", "suspend", task.id, "--reason", "a moment")
        heard = stream.hear().changed
        assert ("suspended", "a moment", True) == (heard.state, heard.reason, heard.version > task.version)
        agent.run("task", "resume", task.id)
        assert "active" == stream.hear().changed.state
        agent.run("task", "revoke", task.id)
        assert ("revoked", "admin") == ((ended := stream.hear().ended).state, ended.reason)

    def test_what_cannot_be_resumed(self, agent: AgentProcess, client: SyncClient) -> None:
        """A task that no operator suspended is not resumed: the command says so and exits with 1."""
        with client.task("triage-ticket") as task:
            done = agent.run("task", "resume", task.id, "--output", "json", check=False)
            outcome = json.loads(done.stdout)
            assert (1, True) == (done.returncode, "not suspended" in outcome["error"])


class TestWhyItWasRevoked:
    SAID = "key copied \x1b[31m on \N{SNOWMAN} host"
    TOLD = "key copied \\x1b[31m on \N{SNOWMAN} host"

    def test_the_holder_hears_it(self, agent: AgentProcess, client: SyncClient) -> None:
        """What the operator said who revoked a task reaches its holder, in SDK, stream, validation and journal, escaped."""
        with client.task("triage-ticket") as task, TaskStream(agent.socket) as stream:
            token = task.token().token
            stream.send(begin=pb.BeginTaskRequest(type="triage-ticket"))
            other = stream.hear().begun
            assert 2 == len(changed(agent, "revoke", "--type", "triage-ticket", "--reason", self.SAID))
            ended = stream.hear().ended
            assert (other.id, "admin", self.TOLD) == (ended.id, ended.reason, ended.explanation)
            until(lambda: task.ended)
            assert ("admin", self.TOLD, f"admin ({self.TOLD})") == (task.reason, task.explanation, task.why)
            with pytest.raises(TaskOver, match=re.escape(f"task is revoked: admin ({self.TOLD})")):
                task.token()
            assert f"the task is over: revoked, admin ({self.TOLD})" == client.validate_token(token, TICKETS).reason
            status, body = ask_by_exchange(agent, task.id)
            assert (400, "invalid_grant") == (status, body["error"])
            plain = "the task is over: revoked, admin (key copied ?x1b[31m on ? host)"
            assert plain == body["error_description"]
            assert self.TOLD == agent.json("task", "show", task.id)["explanation"]
            last = agent.json("task", "why", task.id)["records"]
            assert self.TOLD in [each["fields"].get("explanation") for each in last if each["event"] == "task_ended"]

    def test_it_is_bounded(self, agent: AgentProcess, client: SyncClient) -> None:
        """Of a long text the first 200 characters are told; without one the reason alone is."""
        for said, told in (("x" * 5000, "x" * 200), ("", "")):
            with client.task("triage-ticket") as task:
                agent.run("task", "revoke", task.id, "--reason", said)
                until(lambda task=task: task.ended)
                assert (told, f"admin ({told})" if told else "admin") == (task.explanation, task.why)

    def test_a_command_is_stopped_with_it(self, agent: AgentProcess) -> None:
        """`task run` says it on standard error as it stops its command."""
        command = [
            *COMMAND,
            "task",
            "run",
            "--type",
            "triage-ticket",
            "--",
            "sh",
            "-c",
            "echo $SOJOURN_TASK_ID; exec sleep 60",
        ]
        with subprocess.Popen(
            command, env=agent.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            agent.run("task", "revoke", process.stdout.readline().strip(), "--reason", "incident 7")
            _, told = process.communicate(timeout=30)
        assert "the task has ended (revoked: admin (incident 7)); stopping the command" in told


def ask_by_exchange(agent: AgentProcess, task_id: str) -> tuple[int, dict[str, str]]:
    """Ask the token service for another token of a task."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=agent.socket)) as client:
        answer = client.post("http://localhost/token", data={"grant_type": "client_credentials", "task_id": task_id})
    return answer.status_code, answer.json()


class TestSelection:
    def test_by_type_workload_and_selector(self, agent: AgentProcess, client: SyncClient) -> None:
        """Tasks are selected by type, workload and what their holders were attested with, all of it together."""
        with client.task("triage-ticket") as triage, client.task("two-places") as places:
            mine = f"unix:uid:{os.getuid()}"
            both = {triage.id: "suspended", places.id: "suspended"}
            assert both == changed(agent, "suspend", "--spiffe-id", TRIAGE)
            assert {places.id: "active"} == changed(agent, "resume", "--type", "two-places", "--selector", mine)
            assert {} == changed(agent, "revoke", "--type", "two-places", "--selector", "unix:uid:4999")
            assert {triage.id: "revoked", places.id: "revoked"} == changed(agent, "revoke", "--selector", mine)

    @pytest.mark.root
    def test_others_are_left_alone(self, agent: AgentProcess, client: SyncClient) -> None:
        """Tasks of another user with the same identity are not selected by this user's selector."""
        with Caller(agent.socket, uid=OTHER_UID) as other, client.task("triage-ticket") as mine:
            theirs = other.ask("begin", type="triage-ticket")["id"]
            assert {mine.id: "revoked"} == changed(agent, "revoke", "--selector", f"unix:uid:{os.getuid()}")
            assert "active" == agent.json("task", "show", theirs)["state"]

    def test_nothing_selected(self, agent: AgentProcess) -> None:
        """Without a selection it is refused: nobody revokes all tasks by leaving a word out."""
        for verb in ("suspend", "resume", "revoke"):
            assert 2 == agent.run("task", verb, check=False).returncode
        assert 1 == agent.run("task", "revoke", "tsk_unknown", check=False).returncode
        assert 1 == agent.run("task", "revoke", "--selector", "nonsense", check=False).returncode


class TestKillSwitch:
    @pytest.mark.parametrize("by", ["type", "spiffe-id"])
    def test_off_and_on(self, agent: AgentProcess, client: SyncClient, by: str) -> None:
        """Switched off, its tasks end and none begins, also by exchange; switched on, nothing ended comes back."""
        name = "triage-ticket" if by == "type" else TRIAGE
        with client.task("triage-ticket") as task:
            token = task.token().token
            ended = agent.json("task", "block", f"--{by}", name, "--reason", "incident 7")["ended"]
            told = [(each["id"], each["state"], each["reason"], each["explanation"]) for each in ended]
            assert [(task.id, "revoked", "blocked", "incident 7")] == told
            assert not client.validate_token(token, TICKETS).valid
            with pytest.raises(PolicyDenied, match="incident 7"):
                client.begin_task("triage-ticket")
            if by == "type":
                with client.task("two-places") as other:
                    assert other.token(PLACE_A)
        assert [name] == [each["type"] or each["spiffe_id"] for each in agent.json("task", "blocks")["blocks"]]
        assert 1 == agent.run("task", "block", f"--{by}", name, check=False).returncode
        agent.run("task", "unblock", f"--{by}", name)
        assert not client.validate_token(token, TICKETS).valid
        with client.task("triage-ticket") as again:
            assert again.token()
        assert 1 == agent.run("task", "unblock", f"--{by}", name, check=False).returncode

    def test_over_a_restart(self) -> None:
        """What is switched off is so after a restart of the agent."""
        with make_agent() as agent:
            agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
            agent.run("task", "block", "--type", "triage-ticket", "--reason", "over night")
            agent.stop()
            agent.start()
            with SyncClient(agent.socket) as client, pytest.raises(PolicyDenied, match="over night"):
                client.begin_task("triage-ticket")

    def test_on_again_without_its_type(self) -> None:
        """A type that was switched off is switched on again also when its files are gone meanwhile."""
        with make_agent() as agent:
            agent.run("task", "block", "--type", "two-places")
            for end in ("toml", "cedar"):
                (agent.folder / "types" / f"two-places.{end}").unlink()
            agent.run("policy", "reload")
            agent.run("task", "unblock", "--type", "two-places")
            assert [] == agent.json("task", "blocks")["blocks"]

    def test_what_cannot_be_switched_off(self, agent: AgentProcess) -> None:
        """An unknown type, a name that is none, both or nothing: refused with a reason."""
        for arguments in (
            ("--type", "unheard-of"),
            ("--spiffe-id", "nobody"),
            (),
            ("--type", "triage-ticket", "--spiffe-id", TRIAGE),
        ):
            done = agent.run("task", "block", *arguments, check=False)
            assert (True, True) == (done.returncode in {1, 2}, done.stderr.startswith("error: "))
        assert [] == agent.json("task", "blocks")["blocks"]


class TestHolder:
    def test_narrows(self, agent: AgentProcess, client: SyncClient) -> None:
        """A holder gives up authority early: tokens from before are dead, and it has no more than what it kept."""
        with client.task("two-places") as task:
            wide = task.token(PLACE_A).token
            task.narrow([Grant.parse(PLACE_A, ["doc:read"])])
            assert not client.validate_token(wide, PLACE_A).valid
            assert ("doc:read",) == task.token(PLACE_A).actions
            with pytest.raises(SojournError):
                task.token(PLACE_B)
            with pytest.raises(ActionOutsideType):
                task.narrow([Grant.parse(PLACE_A, ["doc:read", "doc:write"])])
            shown = agent.json("task", "show", task.id)
            assert [{"resource": PLACE_A, "actions": ["doc:read"]}] == shown["grants"]

    def test_narrows_only_its_own(self, agent: AgentProcess, client: SyncClient) -> None:
        """A task that is not the caller's cannot be told from one that is not there."""
        with Caller(agent.socket) as other:
            theirs = other.ask("begin", type="two-places")["id"]
            refusals = []
            for name in (theirs, "tsk_AAAAAAAAAAAAAAAAAAAAAA"):
                with pytest.raises(NotFound) as refused:
                    client.narrow_task(name, [Grant.parse(PLACE_A, ["doc:read"])])
                refusals.append(refused.value.public)
            assert refusals[0] == refusals[1]

    def test_repeats_itself(self, client: SyncClient) -> None:
        """A begin that is repeated with its key gives the same task; with another request it is refused."""
        first = client.begin_task("triage-ticket", idempotency_key="k")
        again = client.begin_task("triage-ticket", idempotency_key="k")
        assert first.id == again.id
        with pytest.raises(SojournError, match="another request"):
            client.begin_task("two-places", idempotency_key="k")
        first.complete()


class TestWhy:
    def test_the_story_of_a_task(self, agent: AgentProcess, client: SyncClient) -> None:
        """`task why` tells what became of a task: begun, tokens, suspended, resumed, ended, with what was used."""
        with client.task("triage-ticket") as task:
            task.token()
            agent.run("task", "suspend", task.id, "--reason", "a moment")
            agent.run("task", "resume", task.id)
        records = agent.json("task", "why", task.id)["records"]
        told = [record["event"] for record in records if not record["event"].endswith("_by_operator")]
        assert ["task_begun", "token_issued", "task_suspended", "task_resumed", "task_ended"] == told
        [use] = records[-1]["fields"]["use"]
        assert ("ticket:read", 1) == (use["action"], use["tokens"])
        assert 2 == agent.run("task", "why", "tsk_unknown", check=False).returncode
