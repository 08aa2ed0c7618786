"""Messages of `sojourn.v1.Tasks`."""

from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.tasktoken.grants import Grant

GRANT = Grant.parse("https://tickets.example.org", ["ticket:read"])


def task(state: str = "active", reason: str = "", version: int = 5) -> pb.Task:
    return pb.Task(
        id="t1",
        type="triage-ticket",
        spiffe_id="spiffe://example.org/agent/triage",
        state=state,
        reason=reason,
        version=version,
        grants=[pb.Grant(resource=GRANT.resource, actions=GRANT.actions)],
        created_at=1_700_000_000,
        expires_at=1_700_000_060,
    )


def pending(given: int = 0) -> pb.Task:
    waiting = task("pending")
    waiting.approval.CopyFrom(
        pb.TaskApproval(
            approval_id="apr_1", expires_at=1_700_000_600, digest="ab", approvers=["operator"], needed=2, given=given
        )
    )
    return waiting


def denied(words: str = "") -> pb.Task:
    over = task("revoked", "approval_denied")
    over.approval.CopyFrom(pb.TaskApproval(approval_id="apr_1", denial=words))
    return over


def ended(state: str, reason: str = "") -> pb.TaskEvent:
    return pb.TaskEvent(ended=task(state, reason))


BEGUN = pb.TaskEvent(begun=task())
