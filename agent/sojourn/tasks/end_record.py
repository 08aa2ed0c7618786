"""What the record of a task's end says of its life: enough that nobody has to look for the records before it.

`seconds`: for how long it was active, absent of a task that never began. `binding`, `depth`, `children`: how it was
held, how often it was handed on before, and as how many tasks further. `use`: a row for each action that it had at its
end, or used before, with the tokens that it took and the calls that services told of. `spent`: tokens and calls of it
and all that came of it, which share a budget: of the first task of a line alone.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sojourn.jose.canonical_json import exactly
from sojourn.limits import TYPE_DIGEST_SHOWN
from sojourn.tasks.kept_fields import FIELDS, ONE_SHOT
from sojourn.tasks.spent import Used, rows_of
from sojourn.tasks.task import PENDING, Task

_READ = {each.member: each.read for each in FIELDS}


def end_of(task: Task, now: datetime) -> dict[str, Any]:
    """The fields of a task that has just ended."""
    began = task.approval is None or task.approved
    spent = task.spent
    return {
        "state": task.state,
        "reason": task.reason,
        "parent": task.parent_id or None,
        "use": task.usage(),
        "explanation": task.explanation or None,
        "seconds": _since(task.created, now.timestamp()) if began else None,
        "binding": task.held_as,
        "depth": task.depth or None,
        "children": task.handed_on or None,
        "spent": None if task.depth else [spent.tokens, spent.calls],
    }


def end_of_left(document: Mapping[str, Any], state: object, now: datetime) -> dict[str, Any]:
    """The fields of a task that an earlier run left in a state, as far as its row can be read. The agent may have been
    down for long, so that the task is said to have lived until its time was up, at the latest.
    """
    try:
        authority, uses = _READ["grants"](document["grants"]), _READ["uses"](document["uses"])
        spent, depth = _READ["spent"](document["spent"]), exactly(int, document["depth"])
        began, until = (exactly(float, document[name]) for name in ("created_at", "expires_at"))
        return {
            "type_version": exactly(str, document["type_digest"])[:TYPE_DIGEST_SHOWN],
            "use": rows_of(authority, Used(spent, uses), spent, {}),
            "seconds": _since(began, min(now.timestamp(), until)) if state != PENDING else None,
            "binding": _held_as(document),
            "depth": depth or None,
            "children": exactly(int, document["handed_on"]) or None,
            "spent": None if depth else [spent.tokens, spent.calls],
        }
    except Exception:  # noqa: BLE001  # a damaged row may raise anything, and its task ends all the same
        return {}


def _held_as(document: Mapping[str, Any]) -> str:
    binding = exactly(str, _READ["binding"](document["binding"]))
    return "session" if exactly(bool, document["session"]) and binding != ONE_SHOT else binding


def _since(began: float, until: float) -> float:
    """Seconds, to the millisecond; 0 if the clock was set back meanwhile."""
    return max(0.0, round(until - began, 3))
