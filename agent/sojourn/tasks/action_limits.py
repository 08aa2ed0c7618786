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
        limit = task.type.limits.get(action)
        if limit is None:
            continue
        left = limit - task.spent.counted.get(action, 0)
        if left < times:
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
    limits, counted = task.type.limits, task.spent.counted
    left = [each for each in grant.actions if each not in limits or counted.get(each, 0) < limits[each]]
    if not left:
        check_left(task, grant.actions)
    given = left if params_digest else [each for each in left if task.type.class_of((each,)) == NORMAL] or left
    also = tuple(each for each in left if each not in given)
    return Offer(grant if len(given) == len(grant.actions) else Grant(grant.resource, tuple(given)), also)
