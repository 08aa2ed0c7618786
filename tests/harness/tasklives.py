"""Tasks that begin with a token, and that are over."""

from sojourn import SyncClient

from harness.callers import Caller
from harness.exchanges import part
from harness.taskagent import (
    TICKETS,
)
from harness.taskcalls import Feed

UNKNOWN = "tsk_AAAAAAAAAAAAAAAAAAAAAA"
GONE = {"revoked: holder_exited", "revoked: holder_disconnected"}


def begun(holder: Caller, **options: object) -> tuple[str, str]:
    """Begin a task on a stream and get a token; return the task's ID and the token."""
    task = holder.ask("begin", type="triage-ticket", **options)
    assert "task" == task["event"], task
    return task["id"], holder.ask("token", task=task["id"])["token"]


def check_over(service: SyncClient, feed: Feed, task: str, token: str, said: set[str]) -> None:
    """The feed says that the task is over, and from then on its token is dead, with the reason."""
    delta = feed.delta(task, live=False)
    assert delta.reason in said
    assert delta.version > part(token, 1)["task"]["ver"]
    verdict = service.validate_token(token, TICKETS, "ticket:read")
    assert (False, "task_over") == (verdict.valid, verdict.code)
    assert f"the task is over: {delta.reason.replace(': ', ', ')}" == verdict.reason
