"""Tasks over a restart of the agent: what comes back, to whom, and what does not. A real agent, stopped and killed."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness.agent import COMMAND, AgentProcess
from harness.callers import Caller
from harness.cgroups import cgroup
from harness.exchanges import form, part, post
from harness.looking import until
from harness.taskagent import OTHER_UID, TICKETS, make_agent, write_type
from harness.taskcalls import Feed, TaskStream, refusal
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb

pytestmark = [pytest.mark.full, pytest.mark.forked]

ATTACH = "/sojourn.v1.Tasks/AttachTask"
UNKNOWN = "tsk_AAAAAAAAAAAAAAAAAAAAAA"
WAITING = ("suspended", "agent_restart")
STOPS = pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """An agent of the test's own, on which this user and OTHER_UID are /agent/triage."""
    with make_agent() as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        running.register("/agent/triage", f"unix:uid:{OTHER_UID}")
        yield running
        assert [] == [line for line in running.log_lines() if line["event"] in {"call_failed", "http_failed"}]
        running.run("audit", "verify")


@pytest.fixture
def holder(agent: AgentProcess) -> Iterator[Caller]:
    with Caller(agent.socket) as caller:
        yield caller


def restart(agent: AgentProcess, stop: int = signal.SIGTERM) -> None:
    agent.stop(stop)
    agent.start()


def ask(holder: Caller, do: str, **arguments: Any) -> dict[str, Any]:
    """Tell a holder to call an agent that has just started, and again while its connection finds nobody there."""

    def answered() -> dict[str, Any] | None:
        answer = holder.ask(do, **arguments)
        return None if answer.get("code") in {"unreachable", "unavailable"} else answer

    return until(answered, "the agent answers")


def shown(agent: AgentProcess, task: str) -> tuple[str, str]:
    """The state of a task and the reason for it."""
    found = agent.json("task", "show", task)
    return found["state"], found["reason"]


def records(agent: AgentProcess, task: str) -> list[tuple[str, str]]:
    """What the journal has of a task: the events with their reasons, oldest first."""
    found = agent.json("audit", "tail", "--lines", "10000")["records"]
    return [(each["event"], each["fields"].get("reason", "")) for each in found if each["fields"].get("task") == task]


def end_of(agent: AgentProcess, task: str) -> list[tuple[str, str]]:
    """How a task has ended, by the journal: (state, reason), once."""
    found = agent.json("audit", "tail", "--lines", "10000")["records"]
    ends = [each["fields"] for each in found if each["event"] == "task_ended" and each["fields"]["task"] == task]
    return [(each["state"], each["reason"]) for each in ends]


@contextmanager
def edited(agent: AgentProcess) -> Iterator[sqlite3.Connection]:
    """The agent's database while it is stopped."""
    with closing(sqlite3.connect(agent.data_dir / "sojourn.db")) as connection:
        yield connection
        connection.commit()


@STOPS
class TestComesBack:
    def test_a_stream(self, agent: AgentProcess, holder: Caller, stop: int) -> None:
        """A task that is a stream comes back by itself: the holder sees a pause, and all tokens of before are dead."""
        task = holder.ask("begin", type="triage-ticket")["id"]
        before = holder.ask("task_token", task=task)["token"]
        restart(agent, stop)
        after = holder.ask("task_token", task=task)
        assert "active" == after["state"]
        versions = [part(token, 1)["task"]["ver"] >> 32 for token in (before, after["token"])]
        assert versions[0] + 1 == versions[1] == agent.json("status")["epoch"]
        with SyncClient(agent.socket) as client:
            assert client.validate_token(after["token"], TICKETS).valid
            assert not client.validate_token(before, TICKETS).valid
        assert [
            ("task_begun", ""),
            ("token_issued", ""),
            ("task_suspended", "agent_restart"),
            ("task_resumed", ""),
            ("token_issued", ""),
        ] == records(agent, task)
        holder.close()
        until(lambda: end_of(agent, task), "the end of the task")
        assert end_of(agent, task) in ([("revoked", "holder_disconnected")], [("revoked", "holder_exited")])

    def test_a_stream_again_and_again(self, agent: AgentProcess, holder: Caller, stop: int) -> None:
        """A task may come back several times, each time with a later version, and be completed at last."""
        task = holder.ask("begin", type="triage-ticket")["id"]
        versions = [part(holder.ask("task_token", task=task)["token"], 1)["task"]["ver"]]
        for _ in range(3):
            restart(agent, stop)
            versions.append(part(holder.ask("task_token", task=task)["token"], 1)["task"]["ver"])
        assert sorted(set(versions)) == versions
        assert "completed" == holder.ask("complete", task=task)["state"]
        assert ("completed", "success") == shown(agent, task)

    def test_a_process(self, agent: AgentProcess, holder: Caller, stop: int) -> None:
        """A task bound to a process comes back when that process asks for a token."""
        task = ask(holder, "begin_process", type="triage-ticket")["id"]
        ask(holder, "token", task=task)
        restart(agent, stop)
        assert WAITING == shown(agent, task)
        token = ask(holder, "token", task=task)["token"]
        assert ("active", "") == shown(agent, task)
        assert 2 == agent.json("task", "show", task)["tokens_issued"]
        with SyncClient(agent.socket) as client:
            assert client.validate_token(token, TICKETS).valid

    def test_attach_task(self, agent: AgentProcess, holder: Caller, stop: int) -> None:
        """AttachTask gives a process its task back, and may be repeated."""
        task = ask(holder, "begin_process", type="triage-ticket")["id"]
        restart(agent, stop)
        for _ in range(2):
            assert "active" == ask(holder, "attach", task=task)["state"]
        assert 1 == records(agent, task).count(("task_resumed", ""))

    def test_a_command(self, agent: AgentProcess, stop: int) -> None:
        """`task run` goes on over a restart, its command with it, and the task is what the command ends with."""
        script = (
            "echo $SOJOURN_TASK_ID; read again; sojourn task token > /dev/null || exit 9; echo got; read end; exit 3"
        )
        command = [*COMMAND, "task", "run", "--type", "triage-ticket", "--", "sh", "-c", script]
        environment = {**agent.environment, "PATH": f"{Path(COMMAND[0]).parent}:{os.environ['PATH']}"}
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as run:
            assert run.stdout is not None
            assert run.stdin is not None
            task = run.stdout.readline().strip()
            restart(agent, stop)
            until(lambda: ("active", "") == shown(agent, task), "the task is active", 10)
            run.stdin.write("\n")
            run.stdin.flush()
            assert "got\n" == run.stdout.readline()
            said, complained = run.communicate("\n", timeout=30)
        assert (3, "", "") == (run.returncode, said, complained)
        assert ("completed", "failure") == shown(agent, task)

    def test_a_shell(self, agent: AgentProcess, stop: int) -> None:
        """A shell's task comes back when a command of the shell uses it."""
        with shell(agent) as (process, task):
            restart(agent, stop)
            tell(process, "sojourn task token > /dev/null && echo got")
            assert "got\n" == process.stdout.readline()
            assert ("active", "") == shown(agent, task)


class TestDoesNotComeBack:
    def test_nobody_came(self, agent: AgentProcess, holder: Caller) -> None:
        """A task whose holder lives but does not come back within ten seconds ends."""
        task = ask(holder, "begin_process", type="triage-ticket")["id"]
        restart(agent)
        ready = time.monotonic()
        until(lambda: ("revoked", "agent_restart") == shown(agent, task), "the end of the task", 20)
        assert 8 < time.monotonic() - ready < 15
        assert "task_not_active" == ask(holder, "token", task=task)["code"]
        assert [("revoked", "agent_restart")] == end_of(agent, task)

    @STOPS
    def test_the_holder_has_gone(self, agent: AgentProcess, holder: Caller, stop: int) -> None:
        """A holder that died while there was no agent holds nothing after it."""
        task = ask(holder, "begin_process", type="triage-ticket")["id"]
        agent.stop(stop)
        holder.kill()
        agent.start()
        assert [("revoked", "holder_exited")] == end_of(agent, task)
        assert 0 == agent.json("status")["live_tasks"]

    @pytest.mark.root
    @STOPS
    def test_the_holder_was_moved(self, agent: AgentProcess, holder: Caller, stop: int) -> None:
        """A holder that was moved to another cgroup while there was no agent holds nothing after it."""
        with cgroup(f"moved-{stop}") as place:
            task = ask(holder, "begin_process", type="triage-ticket")["id"]
            agent.stop(stop)
            place.take(holder.pid)
            agent.start()
            place.leave(holder.pid)
        assert [("revoked", "attestation_changed")] == end_of(agent, task)

    def test_the_holder_dies_before_it_came_back(self, agent: AgentProcess, holder: Caller) -> None:
        """A holder that dies while its task waits is noticed at once."""
        task = ask(holder, "begin_process", type="triage-ticket")["id"]
        restart(agent)
        assert WAITING == shown(agent, task)
        holder.kill()
        until(lambda: ("revoked", "holder_exited") == shown(agent, task), "the end of the task")

    def test_another_program(self, agent: AgentProcess) -> None:
        """A holder that executed another program while there was no agent holds nothing after it."""
        with shell(agent) as (process, task):
            agent.stop()
            tell(process, f"exec {sys.executable} -c 'print(1, flush=True); input()'")
            assert "1\n" == process.stdout.readline()
            agent.start()
            assert [("revoked", "attestation_changed")] == end_of(agent, task)

    def test_another_program_after_the_start(self, agent: AgentProcess) -> None:
        """A holder that executes another program while its task waits holds nothing either."""
        with shell(agent) as (process, task):
            restart(agent)
            tell(process, f"exec {sys.executable} -c 'print(1, flush=True); input()'")
            assert "1\n" == process.stdout.readline()
            until(lambda: ("revoked", "attestation_changed") == shown(agent, task), "the end of the task")

    def test_the_type_has_changed(self, agent: AgentProcess, holder: Caller) -> None:
        """A task whose type's files have changed meanwhile ends."""
        task = holder.ask("begin", type="triage-ticket")["id"]
        agent.stop()
        cedar = agent.folder / "types" / "triage-ticket.cedar"
        cedar.write_text(cedar.read_text() + "\n// changed\n")
        agent.start()
        assert [("revoked", "policy_changed")] == end_of(agent, task)
        assert ("lost", task) == (holder.hear("ended")["state"], task)

    @pytest.mark.root
    def test_the_entry_has_gone(self, agent: AgentProcess) -> None:
        """A task whose entry has expired meanwhile ends."""
        agent.register("/agent/triage", "unix:uid:4003", entry_expiry=str(int(time.time()) + 4))
        with Caller(agent.socket, 4003) as caller:
            task = caller.ask("begin_process", type="triage-ticket")["id"]
            agent.kill()
            time.sleep(5)
            agent.start()
        assert [("revoked", "attestation_changed")] == end_of(agent, task)

    def test_time_is_up(self, agent: AgentProcess, holder: Caller) -> None:
        """A deadline that passes while there is no agent is kept."""
        task = holder.ask("begin", type="triage-ticket", max_seconds=2)["id"]
        agent.stop()
        time.sleep(2)
        agent.start()
        assert [("expired", "deadline")] == end_of(agent, task)

    def test_time_goes_on(self, agent: AgentProcess, holder: Caller) -> None:
        """A task that has come back has no more time than before."""
        begun = time.monotonic()
        task = holder.ask("begin", type="triage-ticket", max_seconds=12)["id"]
        restart(agent)
        holder.ask("task_token", task=task)
        end = holder.hear("ended", seconds=20)
        assert ("expired", "deadline") == (end["state"], end["reason"])
        assert 11 < time.monotonic() - begun < 16

    def test_another_boot(self, agent: AgentProcess, holder: Caller) -> None:
        """After a start of the machine all tasks are over."""
        task = ask(holder, "begin_process", type="triage-ticket")["id"]
        agent.stop()
        with edited(agent) as database:
            database.execute("UPDATE tasks SET boot_id = 'the boot before'")
        agent.start()
        assert [("revoked", "agent_restart")] == end_of(agent, task)
        assert "not_found" == ask(holder, "token", task=task)["code"]

    @STOPS
    def test_one_shot(self, agent: AgentProcess, holder: Caller, stop: int) -> None:
        """The task of a bare exchange ends with the agent; after a kill, at the next start."""
        with SyncClient(agent.socket) as client:
            issuer = "https://sojourn.example.org"
            answer = post(agent.socket, form(client.fetch_jwt_svid(issuer).token))
        assert 200 == answer.status_code, answer.text
        task = part(answer.json()["access_token"], 1)["task"]["id"]
        restart(agent, stop)
        reason = "agent_stopped" if stop == signal.SIGTERM else "agent_restart"
        assert [("revoked", reason)] == end_of(agent, task)

    def test_a_spent_budget_stays_spent(self, agent: AgentProcess, holder: Caller) -> None:
        """Tokens that were given before the agent was killed count after it."""
        agent.stop()
        types = agent.folder / "types"
        write_type(
            types,
            "twice",
            (types / "triage-ticket.toml")
            .read_text()
            .replace("allowed_workloads", "max_tokens = 2\nallowed_workloads"),
            '@id("all") permit (principal, action, resource);',
        )
        agent.start()
        task = ask(holder, "begin_process", type="twice")["id"]
        assert "token" == ask(holder, "token", task=task)["event"]
        restart(agent, signal.SIGKILL)
        assert ["token", "error"] == [ask(holder, "token", task=task)["event"] for _ in range(2)]


class TestStrangers:
    @pytest.mark.root
    @pytest.mark.parametrize("begin", ["begin", "begin_process"])
    def test_nobody_else_gets_it(self, agent: AgentProcess, begin: str) -> None:
        """A waiting task is not found by another process of the same user and identity, as if it were not there."""
        with Caller(agent.socket, OTHER_UID) as holder, Caller(agent.socket, OTHER_UID) as other:
            task = holder.ask(begin, type="triage-ticket")["id"]
            os.kill(holder.pid, signal.SIGSTOP)
            restart(agent)
            heard = [ask(other, "attach", task=name) for name in (task, UNKNOWN)]
            assert heard[0] == heard[1]
            assert "not_found" == heard[0]["code"]
            assert WAITING == shown(agent, task)
            for name in (task, UNKNOWN):
                with TaskStream(agent.socket) as stream:
                    stream.send(attach=pb.Attach(task_id=name))
                    assert ("NOT_FOUND", "there is no such task") == stream.refusal()
            os.kill(holder.pid, signal.SIGCONT)

    def test_each_kind_its_way(self, agent: AgentProcess) -> None:
        """A task that is a stream is not attached by a call, and one of a process not by a stream."""
        with SyncClient(agent.socket, patience_seconds=0) as client:
            held = client.begin_task("triage-ticket")
            with TaskStream(agent.socket) as first:
                first.send(begin=pb.BeginTaskRequest(type="triage-ticket"))
                task = first.hear().begun.id
                restart(agent)
                request = pb.AttachTaskRequest(task_id=task)
                assert "INVALID_ARGUMENT" == refusal(agent.socket, ATTACH, request, pb.Task)[0]
                with TaskStream(agent.socket) as wrong:
                    wrong.send(attach=pb.Attach(task_id=held.id))
                    assert "INVALID_ARGUMENT" == wrong.refusal()[0]
                assert WAITING == shown(agent, task)
                with TaskStream(agent.socket) as right, TaskStream(agent.socket) as second:
                    right.send(attach=pb.Attach(task_id=task))
                    assert "active" == right.hear().attached.state
                    second.send(attach=pb.Attach(task_id=task))
                    assert ("FAILED_PRECONDITION", "the task has its stream") == second.refusal()
                until(lambda: ("revoked", "holder_disconnected") == shown(agent, task), "the end of the task")


class TestValidators:
    def test_the_feed(self, agent: AgentProcess, holder: Caller) -> None:
        """The feed ends with the agent; the next one begins with the new epoch, and the task is suspended in it."""
        task = ask(holder, "begin_process", type="triage-ticket")["id"]
        with Feed(agent.socket, [TICKETS]) as feed:
            epoch = feed.hear("snapshot").epoch
            agent.stop()
            assert "UNAVAILABLE" == feed.end()[0]
        agent.start()
        with Feed(agent.socket, [TICKETS]) as feed:
            snapshot = feed.hear("snapshot")
            assert epoch + 1 == snapshot.epoch
            (state,) = snapshot.snapshot.tasks
            assert (task, False, True, epoch + 1) == (state.id, state.live, state.suspended, state.version >> 32)
            ask(holder, "token", task=task)
            assert state.version < feed.delta(task, live=True).version


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        ["document = '{'", "document = x'ff00'", "document = '{}'", "version = 'many'", "version = 1 << 62",
         "document = json_set(document, '$.deadline', 1e300)", "document = json_set(document, '$.uid', '0')",
         "document = json_set(document, '$.grants[0].actions[0]', 'ticket:destroy')"],
    )  # fmt: skip
    def test_a_row(self, agent: AgentProcess, holder: Caller, damage: str) -> None:
        """A task that cannot be read ends, loudly; the agent starts, and others come back."""
        task, other = (ask(holder, "begin_process", type="triage-ticket")["id"] for _ in range(2))
        agent.stop()
        with edited(agent) as database:
            database.execute(f"UPDATE tasks SET {damage} WHERE id = ?", [task])
        agent.start()
        assert [("revoked", "journal_damaged")] == end_of(agent, task)
        assert [task] == [line["task_id"] for line in agent.log_lines() if line["event"] == "task_journal_damaged"]
        assert "not_found" == ask(holder, "token", task=task)["code"]
        assert "token" == ask(holder, "token", task=other)["event"]
        restart(agent)
        assert [("revoked", "journal_damaged")] == end_of(agent, task)


@contextmanager
def shell(agent: AgentProcess) -> Iterator[tuple[Any, str]]:
    """A shell that has begun a task as its holder, and the task's ID. It runs what it is told."""
    environment = {**agent.environment, "PATH": f"{Path(COMMAND[0]).parent}:{os.environ['PATH']}"}
    with subprocess.Popen(
        ["sh"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            tell(process, "export SOJOURN_TASK_ID=$(sojourn task begin --type triage-ticket); echo $SOJOURN_TASK_ID")
            assert process.stdout is not None
            task = process.stdout.readline().strip()
            assert task.startswith("tsk_"), task
            yield process, task
        finally:
            process.kill()


def tell(process: Any, line: str) -> None:
    process.stdin.write(line + "\n")
    process.stdin.flush()
