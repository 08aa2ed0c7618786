"""A principal, and what tests of policy decide about."""

from fakes.task_types import TRIAGE
from sojourn.policy.cedar_schema import Fields, Principal

ACTIONS = ["ticket:read", "ticket:write"]
PARAMS = Fields({"ticket": "string", "level": "long", "urgent": "boolean"})


def principal(**changes):
    fields = {
        "task_id": "tsk_1",
        "task_type": "triage",
        "workload": TRIAGE,
        "state": "active",
        "tokens_issued": 0,
        "reported_calls": 0,
    }
    return Principal(**{**fields, **changes})
