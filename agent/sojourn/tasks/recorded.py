"""What audit records have of what a task holds: enough to decide again later what was decided for it."""

from typing import Any

from sojourn.policy.cedar_schema import recorded_params
from sojourn.tasks.task import Task
from sojourn.tasktoken.grants import Authority


def asked_for(wanted: Authority | None) -> dict[str, Any]:
    """Whether its grants were named in the request, or were to be all that it can have: then less would do, too."""
    return {"wanted": "all"} if wanted is None else {}


def held_by(task: Task, key: bytes) -> dict[str, Any]:
    """Its grants and its parameters. `key`: of the digests of those parameters that are kept out of records."""
    return {"grants": task.authority.document(), "params": params_of(task, key)}


def params_of(task: Task, key: bytes) -> dict[str, Any]:
    """Its parameters."""
    return dict(recorded_params(task.params, task.hidden_params, key))
