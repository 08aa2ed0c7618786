"""Announcing what has become of a task: once for each change, to all who must hear of it, in a stated order.

First come those who would still give something for the task, then who takes back what it was given, then the services
that validate its tokens, and last its holder. None of them blocks, and none raises.
"""

from collections.abc import Callable
from enum import IntEnum

from sojourn.tasks.task import PENDING, Task
from sojourn.tasktoken.grants import Authority

Subscriber = Callable[[Task, Authority | None], object]  # `before`: what it held, if that is less now


class Place(IntEnum):
    """Who hears of a task, in this order."""

    STATUS_LISTS = 0  # what they say of its tokens
    CREDENTIAL_CACHE = 1  # what providers gave, and would be handed out again
    CREDENTIAL_LEDGER = 2  # what is taken back at providers
    USE_REPORTS = 3  # how long uses of an ended task count
    VALIDATORS = 4


class Announcements:
    """Those who hear of tasks."""

    def __init__(self) -> None:
        self._subscribers: list[tuple[Place, Subscriber]] = []  # in the order of their places
        self._holders: dict[str, Callable[[], object]] = {}  # by task

    def subscribe(self, place: Place, subscriber: Subscriber) -> None:
        """Have `subscriber` hear of each change of each task that is not pending."""
        self._subscribers.append((place, subscriber))
        self._subscribers.sort(key=lambda each: each[0])

    def unsubscribe(self, place: Place, subscriber: Subscriber) -> None:
        """Have it hear no more."""
        self._subscribers.remove((place, subscriber))

    def to_holder(self, task: Task, hook: Callable[[], object]) -> None:
        """Call `hook` when the task has changed or ended: for the stream that is the task."""
        self._holders[task.id] = hook

    def announce(self, task: Task, before: Authority | None = None) -> None:
        """A task has changed.

        The holder alone hears of a pending task. It has no token, and a validator that heard of a task which is not
        active would take it for ended.
        """
        if task.state != PENDING:
            for _, subscriber in self._subscribers:
                subscriber(task, before)
        self.tell_holder(task)

    def tell_holder(self, task: Task) -> None:
        """Have the stream that is the task look at it, and at the agent."""
        hook = self._holders.get(task.id)
        if hook is not None:
            hook()
        if not task.live:
            self._holders.pop(task.id, None)
