"""Tasks: whose they are, and with which process they live."""

import os
import signal
import subprocess
import sys

import pytest
from harness.agent import COMMAND, AgentProcess
from harness.callers import Caller
from harness.strangers import stranger
from harness.taskagent import (
    OTHER_UID,
    THIRD_UID,
    TICKETS,
)
from harness.taskcalls import Feed
from harness.tasklives import UNKNOWN, begun, check_over
from sojourn import SyncClient

# --- whose task it is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("doing", ["token", "complete"])
def test_a_task_is_not_for_another_process(holder: Caller, bystander: Caller, doing: str) -> None:
    """Another process of the same user and identity gets for a task the very answer that it gets for an unknown one."""
    task, _ = begun(holder)
    refused = bystander.ask(doing, task=task)
    assert bystander.ask(doing, task=UNKNOWN) == refused
    assert ("error", "not_found") == (refused["event"], refused["code"])
    assert "token" == holder.ask("token", task=task)["event"]  # nothing has become of it


@pytest.mark.root
@pytest.mark.parametrize("uid", [OTHER_UID, THIRD_UID], ids=["same identity", "another identity"])
def test_a_task_is_not_for_another_user(shared: AgentProcess, holder: Caller, uid: int) -> None:
    """A process of another user cannot tell a task from an unknown one, even if it has the same identity."""
    task, _ = begun(holder)
    with stranger(shared.socket, uid) as other:
        refused = other.ask("token", task=task)
        assert other.ask("token", task=UNKNOWN) == refused
        assert "not_found" == refused["code"]


def test_an_ended_task_is_not_for_another_process(holder: Caller, bystander: Caller) -> None:
    """A process cannot tell an ended task of another from an unknown one."""
    task, _ = begun(holder)
    holder.tell("complete", task=task)
    holder.hear("task")
    assert bystander.ask("token", task=UNKNOWN) == bystander.ask("token", task=task)


CHILD = f"{sys.executable} {COMMAND[0]} task token "


def session(shared: AgentProcess, script: str) -> "subprocess.Popen[str]":
    """`sojourn task run` with a shell script; what the script prints can be read."""
    return subprocess.Popen(
        [*COMMAND, "task", "run", "--type", "triage-ticket", "--", "sh", "-c", script],
        env=shared.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.forked
def test_descendants_may_use_a_session_task(shared: AgentProcess, service: SyncClient) -> None:
    """A grandchild of a session task's holder gets a token of the task, and the token is dead when the command ends."""
    with session(shared, f"sh -c '{CHILD}; true'; echo; read line") as run:
        assert run.stdout is not None
        token = run.stdout.readline().strip()
        assert service.validate_token(token, TICKETS, "ticket:read").valid
        run.communicate("\n", timeout=30)
    assert 0 == run.returncode
    verdict = service.validate_token(token, TICKETS)
    assert ("task_over", "the task is over: completed, success") == (verdict.code, verdict.reason)


def test_a_daemonised_descendant_may_use_a_session_task(shared: AgentProcess, service: SyncClient) -> None:
    """A descendant that forked twice and began a session of its own still counts as one of the task's."""
    daemon = f"(setsid sh -c '{CHILD}; echo done' &) ; read line"
    with session(shared, daemon) as run:
        assert run.stdout is not None
        token = run.stdout.readline().strip()
        verdict = service.validate_token(token, TICKETS)
        assert (True, "") == (verdict.valid, verdict.reason)
        run.communicate("\n", timeout=30)
    assert 0 == run.returncode


def test_others_may_not_use_a_session_task(shared: AgentProcess, bystander: Caller) -> None:
    """An unrelated process of the same user cannot tell a session task from an unknown one."""
    with session(shared, "echo $SOJOURN_TASK_ID; read line") as run:
        assert run.stdout is not None
        task = run.stdout.readline().strip()
        assert task.startswith("tsk_")
        refused = bystander.ask("token", task=task)
        assert bystander.ask("token", task=UNKNOWN) == refused
        assert "not_found" == refused["code"]
        run.communicate("\n", timeout=30)


def test_a_plain_task_is_not_for_descendants(shared: AgentProcess) -> None:
    """A task that is no session is its holder's alone: a child of the holder cannot use it."""
    with SyncClient(shared.socket) as client, client.task("triage-ticket") as task:
        assert task.token().actions == ("ticket:read",)
        done = shared.run("task", "token", task.id, check=False)
    assert (1, "error: there is no such task [not_found]") == (done.returncode, done.stderr.splitlines()[0])


# --- tasks that live with a process ---------------------------------------------------------------------------------


def test_a_task_bound_to_the_caller(holder: Caller, service: SyncClient, feed: Feed) -> None:
    """A task bound to a process gives tokens to it, and is over when the process is killed."""
    task = holder.ask("begin_process", type="triage-ticket")["id"]
    token = holder.ask("token", task=task)["token"]
    assert service.validate_token(token, TICKETS).valid
    holder.kill()
    check_over(service, feed, task, token, {"revoked: holder_exited"})


@pytest.mark.forked
def test_a_task_bound_to_an_ancestor(shared: AgentProcess, service: SyncClient, feed: Feed) -> None:
    """A helper may bind a task to an ancestor; it outlives the helper and ends with the ancestor."""
    script = f"id=$({COMMAND[0]} task begin --type triage-ticket); echo $id; {COMMAND[0]} task token $id; read line"
    with subprocess.Popen(
        ["sh", "-c", script], env=shared.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout is not None
        task, token = shell.stdout.readline().strip(), shell.stdout.readline().strip()
        assert service.validate_token(token, TICKETS).valid
        assert shell.pid == shared.json("task", "show", task)["holder_pid"]
        shell.send_signal(signal.SIGKILL)
    check_over(service, feed, task, token, {"revoked: holder_exited"})


def test_a_task_is_not_bound_to_a_stranger(holder: Caller, bystander: Caller) -> None:
    """A task cannot be bound to a process that is no ancestor of the caller."""
    refused = holder.ask("begin_process", type="triage-ticket", holder_pid=bystander.pid)
    assert ("policy_denied", "holder_pid is neither the caller nor an ancestor of it that runs as the same user") == (
        refused["code"],
        refused["message"],
    )


@pytest.mark.root
def test_a_task_is_not_bound_to_an_ancestor_of_another_user(shared: AgentProcess) -> None:
    """A task cannot be bound to an ancestor that runs as another user."""
    with stranger(shared.socket, OTHER_UID) as caller:
        refused = caller.ask("begin_process", type="triage-ticket", holder_pid=os.getpid())
        assert "policy_denied" == refused["code"]


def test_a_holder_that_does_not_exist(holder: Caller) -> None:
    """Binding a task to a process that does not exist is refused with a sentence that says so."""
    refused = holder.ask("begin_process", type="triage-ticket", holder_pid=2**22 - 3)
    assert ("error", f"workload attestation failed: there is no process {2**22 - 3}") == (
        refused["event"],
        refused["message"],
    )
    assert "holder_pid is negative" == holder.ask("begin_process", type="triage-ticket", holder_pid=-5)["message"]


def test_process_1(holder: Caller) -> None:
    """Process 1, which a shell in a container may be, holds no task: the refusal says what to do there."""
    refused = holder.ask("begin_process", type="triage-ticket", holder_pid=1)
    assert "policy_denied" == refused["code"]
    assert "begin it from a shell of its own" in refused["message"]
