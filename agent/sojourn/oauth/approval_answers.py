"""What a client is answered whose task waits for somebody to agree (RFC 8628, 3.5)."""

from sojourn.errors import ApprovalDenied, ApprovalExpired
from sojourn.errors.oauth import AuthorizationPending
from sojourn.tasks.task import PENDING, Task
from sojourn.tasktoken.end_reasons import APPROVAL_DENIED, APPROVAL_EXPIRED


def check_decided(task: Task, boot: float) -> None:
    """Raise what a task that waits for approval is answered with, or one that did not get it. `boot`: the boot clock
    now, in seconds.
    """
    if task.reason == APPROVAL_DENIED:
        raise ApprovalDenied("whoever was asked to agree to the task said no")
    if task.reason == APPROVAL_EXPIRED:
        raise ApprovalExpired("nobody agreed to the task in time")
    if task.state != PENDING or task.approval is None:
        return
    wanted = task.approval.request
    raise AuthorizationPending(
        f"the task waits for approval by {', '.join(wanted.approvers)}: `sojourn approval approve {wanted.id}`;"
        " send the same request again with task_id",
        task_id=task.id,
        approval_id=wanted.id,
        approvers=wanted.approvers,
        seconds=max(0, int(task.deadline - boot)),
    )
