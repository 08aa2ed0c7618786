"""What a workload that is no operator is told: how its own tasks fare, and whom to ask for what it may not see."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from harness.agent import COMMAND, AgentProcess, becoming
from harness.callers import Caller
from harness.taskagent import OTHER_UID, STRANGER_UID, THIRD_UID, TICKETS, shared_agent
from harness.taskcalls import refusal, unary
from sojourn import SyncClient
from sojourn._pb.sojourn.v1 import tasks_pb2

pytestmark = [pytest.mark.forked, pytest.mark.root]
SHOW = "/sojourn.v1.Tasks/ShowTask"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with shared_agent() as running:
        yield running


def run(agent: AgentProcess, uid: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command as another user."""
    command = [*becoming(uid), *COMMAND, *arguments]
    return subprocess.run(command, env=agent.environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_refusal_names_nothing_that_its_reader_may_not_run(agent: AgentProcess) -> None:
    """A workload that policy refuses is told to ask the operator; the operator is told the command."""
    refused = run(agent, OTHER_UID, "task", "run", "--type", "not-for-triage", "--", "true")
    assert "next:  the task type, facts and switches decide; ask the operator: `sojourn audit tail`" in refused.stderr
    stranger = run(agent, STRANGER_UID, "svid", "x509")
    assert "next:  ask the operator: `sojourn explain --pid PID`" in stranger.stderr
    operators = agent.run("task", "begin", "--type", "not-for-triage", check=False)
    assert "next:  the task type, facts and switches decide; `sojourn audit tail` has the record" in operators.stderr


def test_a_workload_sees_its_own_task(agent: AgentProcess) -> None:
    """`task show` tells a workload what became of its task, also after its holder's end, and nobody else of it."""
    with Caller(agent.socket, uid=OTHER_UID) as holder:
        task = holder.ask("begin_process", type="triage-ticket")["id"]
        assert '"state": "active"' in run(agent, OTHER_UID, "task", "show", task, "--output", "json").stdout
        agent.run("task", "revoke", task, "--reason", "incident 7")
    shown = json.loads(run(agent, OTHER_UID, "task", "show", task, "--output", "json").stdout)
    assert ("revoked", "admin", "incident 7") == (shown["state"], shown["reason"], shown["explanation"])
    assert ([], {}, 0) == (shown["grants"], shown["params"], shown["holder_pid"])
    for uid in (THIRD_UID, STRANGER_UID):  # another identity, and none
        other = run(agent, uid, "task", "show", task)
        assert (1, "") == (other.returncode, other.stdout), uid
    # The same identity, and another user.
    request = tasks_pb2.ShowTaskRequest(task_id=task)
    assert ("NOT_FOUND", "there is no such task") == refusal(agent.socket, SHOW, request, tasks_pb2.Task)


def test_a_holder_sees_all_of_it(agent: AgentProcess) -> None:
    """To the process that holds a task, also when it is over, it is shown whole."""
    with SyncClient(agent.socket) as client, client.task("triage-ticket", params={"ticket": "42"}) as task:
        request = tasks_pb2.ShowTaskRequest(task_id=task.id)
        shown = unary(agent.socket, SHOW, request, tasks_pb2.Task)
        assert ("active", {"ticket": "42"}) == (shown.state, dict(shown.params))
        assert [TICKETS] == [grant.resource for grant in shown.grants]
        task.complete()
        shown = unary(agent.socket, SHOW, request, tasks_pb2.Task)
        assert ("completed", "success", 1) == (shown.state, shown.reason, len(shown.grants))
