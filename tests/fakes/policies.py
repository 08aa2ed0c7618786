"""A principal, and what tests of policy decide about."""

from fakes.task_types import TRIAGE
from sojourn.policy.cedar_schema import UNSAID, Fields, Principal, some_task
from sojourn.policy.questions import Question
from sojourn.policy.user import User

ACTIONS = ["ticket:read", "ticket:write"]
PARAMS = Fields({"ticket": "string", "level": "long", "urgent": "boolean"})


def principal(**changes):
    """A task that has just begun, but for the changes."""
    fields = {"task_id": "tsk_1", "task_type": "triage", "workload": TRIAGE, "user": None, **UNSAID}
    return Principal(**{**fields, **changes})


def user(**changes):
    """A person who has just logged in, but for the changes."""
    fields = {"issuer": "corp", "subject": "u1", "acr": "mfa", "amr": ("pwd", "otp"), "groups": ("lead", "support")}
    return User(**{**fields, "auth_age": 60, "claims": (), **changes})


def question(*what, workload=TRIAGE, task_type="triage", **more):
    """A question of such a task: what the task is, and what else the question has."""
    said = {name: more.pop(name) for name in ("user", *UNSAID) if name in more}
    return Question(some_task(task_type, workload, **said), *what, **more)
