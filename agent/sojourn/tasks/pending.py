"""Tasks that wait for approval, by the ID of their request."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from sojourn.errors import LimitExceeded
from sojourn.limits import APPROVALS_WAITING, APPROVALS_WAITING_PER_UID
from sojourn.quota.shares import may_take
from sojourn.quota.usage import Usage
from sojourn.runtime.hooks import Hooks
from sojourn.tasks.task import PENDING, Task


@dataclass(slots=True, eq=False)
class Waiter:
    """One task. Whoever agrees does so in `turn`; `settled` is set once it waits no more."""

    task: Task
    user: int  # whose request it is
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    shown: bool = False  # the request is on disk: it may be decided


class Waiting:
    """All of them."""

    def __init__(self, user_of: Callable[[int], int] = lambda uid: uid) -> None:
        """`user_of`: the user who may become a uid."""
        self._user_of = user_of
        self.on_shown = Hooks[[Task]]()  # its request may be decided from now on
        self.on_over = Hooks[[Task]]()  # a task whose request was shown waits no more: it has begun, or is over
        self._waiters: dict[str, Waiter] = {}
        self._per_user = Usage[int]()

    def __len__(self) -> int:
        return len(self._waiters)

    def all(self) -> list[Task]:
        """Those whose request may be decided, the oldest first."""
        return [waiter.task for waiter in self._waiters.values() if waiter.shown]

    def find(self, approval_id: str) -> Waiter | None:
        waiter = self._waiters.get(approval_id)
        return waiter if waiter is not None and waiter.shown else None

    def check_room(self, uid: int) -> None:
        """Raise LimitExceeded if no further request of this user may wait."""
        own = self._per_user[self._user_of(uid)]
        if own >= APPROVALS_WAITING_PER_UID or not may_take(own, len(self._waiters), APPROVALS_WAITING):
            raise LimitExceeded("too many tasks wait for approval")

    def add(self, task: Task) -> None:
        """Take a task that is pending; any other changes nothing."""
        if task.state == PENDING and task.approval is not None:
            user = self._user_of(task.uid)
            self._waiters[task.approval.request.id] = Waiter(task, user)
            self._per_user.add(user)

    def show(self, task: Task) -> None:
        """Its request may be decided from now on."""
        if task.approval is not None and task.approval.request.id in self._waiters:
            self._waiters[task.approval.request.id].shown = True
            self.on_shown.tell(task)

    def remove(self, task: Task) -> None:
        """It waits no more: it has begun, or is over."""
        waiter = None if task.approval is None else self._waiters.pop(task.approval.request.id, None)
        if waiter is not None:
            waiter.settled.set()
            self._per_user.remove(waiter.user)
            if waiter.shown:
                self.on_over.tell(task)

    async def settled(self, task: Task, seconds: float) -> None:
        """Return when the task waits no more, or after that time."""
        waiter = None if task.approval is None else self._waiters.get(task.approval.request.id)
        if waiter is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiter.settled.wait()
