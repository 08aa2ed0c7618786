"""What is left of the actions that a task type limits, and which actions a token is for if none is named."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sojourn.errors.oauth import ActionUsedUp
from sojourn.tasks.task import Task
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.task_claim import NORMAL


def check_left(task: Task, actions: Iterable[str], times: int = 1) -> None:
    """Raise ActionUsedUp if the task, or its family, has fewer uses of one of these actions left than so many."""
    for action in actions:
        left = _left(task, action)
        if left is not None and left < times:
            limit = task.type.limits[action]
            may = f"a task of type {task.type.name!r} may do {action!r} {'once' if limit == 1 else f'{limit} times'}"
            so = f"the request does it {times} times, with {left} left" if left > 0 else "has done so"
            raise ActionUsedUp(f"{may}, and {so}")


class Offer(NamedTuple):
    """What a token is for, and what else the task may do there by a token of its own."""

    grant: Grant
    also: tuple[str, ...] = ()


def offered(task: Task, grant: Grant, named: Sequence[str], params_digest: str) -> Offer:
    """What a token is for. Where actions were `named` it is those alone, and ActionUsedUp is raised if one is used up.

    Else it is what the task may do there now. Without a digest that is what needs none, if there is such.
    """
    if named:
        check_left(task, grant.actions)
        return Offer(grant)
    left = [each for each in grant.actions if _left(task, each) != 0]
    if not left:
        check_left(task, grant.actions)
    given = left if params_digest else [each for each in left if task.type.class_of((each,)) == NORMAL] or left
    also = tuple(each for each in left if each not in given)
    return Offer(grant if len(given) == len(grant.actions) else Grant(grant.resource, tuple(given)), also)


def _left(task: Task, action: str) -> int | None:
    """How many uses of an action the task, or its family, has left: None if its type does not limit it."""
    limit = task.type.limits.get(action)
    return None if limit is None else max(0, limit - task.spent.counted.get(action, 0))
