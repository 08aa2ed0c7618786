"""When tasks end by themselves: their time is up, or they were not used for too long. Both on the boot clock."""

from collections.abc import Callable

from sojourn.clock import Alarms, Clock
from sojourn.tasks.reasons import APPROVAL_EXPIRED, DEADLINE, IDLE
from sojourn.tasks.task import EXPIRED, PENDING, Task


class Deadlines:
    """Watches tasks. `end(task, state, reason)` is the engine's."""

    def __init__(self, clock: Clock, alarms: Alarms, end: Callable[[Task, str, str], None]) -> None:
        self._clock = clock
        self._alarms = alarms
        self._end = end
        self._over = self._time_up  # one for all alarms

    def watch(self, task: Task) -> None:
        """End the task when its time is up, or when it was not used for too long; what was set before is off."""
        self.forget(task)
        task.alarms = (self._alarms.at(task.deadline, self._over, task),)
        self._watch_idle(task)

    def used(self, task: Task) -> None:
        """The task was used: it is not idle from now on."""
        task.last_used = self._clock.boot()

    def check(self, task: Task) -> None:
        """End a live task whose time is up, though its alarm has not rung yet."""
        boot = self._clock.boot()
        if boot >= task.deadline:
            self._time_up(task)
        elif task.live and boot >= task.idle_deadline:
            self._end(task, EXPIRED, IDLE)

    def forget(self, task: Task) -> None:
        for alarm in task.alarms:
            alarm.cancel()

    def _time_up(self, task: Task) -> None:
        if task.live:
            self._end(task, EXPIRED, APPROVAL_EXPIRED if task.state == PENDING else DEADLINE)

    def _watch_idle(self, task: Task) -> None:
        if not task.live or task.type.idle_timeout is None or task.state == PENDING:
            return
        left = task.idle_deadline - self._clock.boot()
        if left <= 0:
            self._end(task, EXPIRED, IDLE)
            return
        task.alarms = (task.alarms[0], self._alarms.after(left, self._watch_idle, task))
