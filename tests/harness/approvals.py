"""An agent with task types that need approval, and the people who give it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from sojourn._pb.sojourn.v1 import admin_pb2, tasks_pb2
from sojourn._pb.sojourn.v1 import approvals_pb2 as pb
from sojourn.cli.output import whole

from harness.agent import COMMAND, AgentProcess
from harness.callers import Caller
from harness.taskagent import (
    OTHER_UID,
    PLACE_A,
    STRANGER_UID,
    THIRD_UID,
    TRIAGE,
    inner_failures,
    make_agent,
    write_type,
)
from harness.taskcalls import unary

ADMIN = "/sojourn.v1.Admin/"
BOSS, BOSS_UID = "spiffe://example.org/boss", 4003
_PERMIT = '@id("all") permit (principal, action, resource);'
_TYPE = f"""
allowed_workloads = ["{TRIAGE}"]
{{}}
[params]
amount = "long"
note = "string"
[[ceiling]]
resource = "{PLACE_A}"
actions = ["doc:read", "doc:write"]
"""
TYPES = {
    "asked": "[approval]",
    "hurried": '[approval]\nwithin = "2s"',
    "two-people": "[approval]\ncount = 2",
    "over": "[approval]\nwhen = 'context.params has amount && context.params.amount > 5000'",
    "boss": f'[approval]\napprovers = ["{BOSS}"]',
    "glass": 'break_glass = true\nmax_duration = "10m"\n[approval]',
    "short-glass": 'break_glass = true\nmax_duration = "2s"\n[approval]',
}
# Runs a command as someone who logged in as the user that the first argument names; the kernel allows it once.
AS_LOGIN = ["sh", "-c", 'echo "$0" > /proc/self/loginuid && exec "$@"']


def make_approval_agent() -> AgentProcess:
    """It is not started. OTHER_UID is /agent/triage, BOSS_UID is /boss, THIRD_UID is both; STRANGER_UID is /stranger."""
    agent = make_agent()
    for name, lines in TYPES.items():
        write_type(agent.folder / "types", name, _TYPE.format(lines), _PERMIT)
    return agent


def register(agent: AgentProcess) -> None:
    """All at once: each run of the command takes a second."""
    uids = {
        "/agent/triage": (OTHER_UID, THIRD_UID, os.getuid()),
        "/boss": (BOSS_UID, THIRD_UID),
        "/stranger": (STRANGER_UID,),
    }
    entries = [
        {"spiffe_id": f"spiffe://example.org{path}", "selectors": [f"unix:uid:{uid}"]}
        for path, several in uids.items()
        for uid in several
    ]
    file = agent.folder / "entries.json"
    file.write_text(json.dumps({"entries": entries}))
    agent.run("entry", "apply", "-f", str(file))


@contextmanager
def approval_agent() -> Iterator[AgentProcess]:
    """A running one, which must not have failed inside when it is done with."""
    with make_approval_agent() as agent:
        register(agent)
        yield agent
        assert [] == inner_failures(agent)


def ask(caller: Caller, kind: str = "asked", **arguments: Any) -> dict[str, Any]:
    """Have a caller begin a task that ends with it; return what it says of the request."""
    caller.tell("begin", type=kind, **arguments)
    return caller.hear("pending", "error")


def approvals(agent: AgentProcess) -> list[pb.Approval]:
    """What waits, the oldest first."""
    answer = unary(agent.admin_socket, f"{ADMIN}ListApprovals", pb.ListApprovalsRequest(), pb.ListApprovalsResponse)
    return list(answer.approvals)


def decide(agent: AgentProcess, asked: dict[str, Any], verdict: str = "approve", digest: str = "") -> str:
    """Decide as this process, an operator. Return the state of the task then, or the code of the refusal."""
    request = pb.DecideApprovalRequest(
        approval_id=asked["approval"],
        digest=digest or asked["digest"],
        verdict=pb.DecideApprovalRequest.Verdict.Value(f"VERDICT_{verdict.upper()}"),
    )
    try:
        answer = unary(agent.admin_socket, f"{ADMIN}DecideApproval", request, pb.DecideApprovalResponse)
    except grpc.RpcError as error:
        return next(str(value) for name, value in error.trailing_metadata() if name == "sojourn-code")
    return str(answer.task.state)


def state_of(agent: AgentProcess, task_id: str) -> tuple[str, str]:
    task = unary(agent.admin_socket, f"{ADMIN}GetTask", admin_pb2.GetTaskRequest(task_id=task_id), tasks_pb2.Task)
    return task.state, task.reason


def records(agent: AgentProcess, task_id: str, event: str) -> list[dict[str, Any]]:
    """The fields of the audit records about a task with this name."""
    request = admin_pb2.ListAuditRequest(limit=1_000, task_id=task_id)
    told = unary(agent.admin_socket, f"{ADMIN}ListAudit", request, admin_pb2.ListAuditResponse).records
    return [whole(MessageToDict(record.fields)) for record in told if record.event == event]


def trail(agent: AgentProcess, task_id: str) -> list[str]:
    """The names of the audit records about a task, oldest first."""
    request = admin_pb2.ListAuditRequest(limit=1_000, task_id=task_id)
    told = unary(agent.admin_socket, f"{ADMIN}ListAudit", request, admin_pb2.ListAuditResponse).records
    return [record.event for record in sorted(told, key=lambda each: each.seq)]


def review_all(agent: AgentProcess) -> None:
    """Do all reviews that are owed; their tasks are over."""
    owed = unary(
        agent.admin_socket, f"{ADMIN}ListReviews", admin_pb2.ListReviewsRequest(), admin_pb2.ListReviewsResponse
    )
    for review in owed.reviews:
        request = admin_pb2.CompleteReviewRequest(task_id=review.task_id, finding="test over")
        unary(agent.admin_socket, f"{ADMIN}CompleteReview", request, admin_pb2.CompleteReviewResponse)


def as_login(login_uid: int, agent: AgentProcess, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as this user, who logged in as another."""
    return subprocess.run(
        [*AS_LOGIN, str(login_uid), *COMMAND, *arguments],
        env=agent.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def logged_in(agent: AgentProcess, uid: int, login_uid: int) -> Caller:
    """A caller of `uid` who logged in as another."""
    script = str(Path(__file__).with_name("caller.py"))
    return Caller(agent.socket, uid=uid, argv=[*AS_LOGIN, str(login_uid), sys.executable, script])


def can_log_in() -> bool:
    """Whether this kernel lets a process have a login user."""
    done = subprocess.run(
        [*AS_LOGIN, "4711", "cat", "/proc/self/loginuid"], capture_output=True, text=True, check=False
    )
    return done.stdout == "4711"


def error_of(done: "subprocess.CompletedProcess[str]") -> str:
    """The stable code of the error that a command with --output json ended with."""
    return str(json.loads(done.stderr.splitlines()[-1])["error"]["code"])
