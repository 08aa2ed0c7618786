"""When tasks end by themselves: their time is up, or they were not used for too long. Both on the boot clock.

There may be tens of thousands of one-shot tasks, of a minute each: those whose time is up in the same second end
together when it is over. Until then they have ended all the same for whoever uses one.
"""

from collections.abc import Callable
from itertools import islice
from math import ceil

from sojourn.limits import TASKS_ENDED_AT_ONCE
from sojourn.runtime.clock import Alarm, Alarms, Clock
from sojourn.tasks.kept_fields import ONE_SHOT
from sojourn.tasks.task import EXPIRED, PENDING, Task
from sojourn.tasktoken.end_reasons import APPROVAL_EXPIRED, DEADLINE, IDLE


class Deadlines:
    """Watches tasks. `end(task, state, reason)` is the engine's."""

    def __init__(self, clock: Clock, alarms: Alarms, end: Callable[[Task, str, str], None]) -> None:
        self._clock = clock
        self._alarms = alarms
        self._end = end
        self._over = self._time_up  # one for all alarms
        self._together: dict[int, dict[str, Task]] = {}  # one-shot tasks by the second that is over then
        self._seconds: dict[int, Alarm] = {}  # that ring then

    def watch(self, task: Task) -> None:
        """End the task when its time is up, or when it was not used for too long; what was set before is off."""
        self.forget(task)
        if task.binding == ONE_SHOT and task.state != PENDING and task.type.idle_timeout is None:
            task.ring()
            self._watch_together(task)
            return
        task.ring(self._alarms.at(task.deadline, self._over, task))
        self._watch_idle(task)

    def used(self, task: Task) -> None:
        """The task was used: it is not idle from now on."""
        task.touch(self._clock.boot())

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
        second = ceil(task.deadline)
        together = self._together.get(second)
        if together is not None and together.pop(task.id, None) is not None and not together:
            del self._together[second]
            self._seconds.pop(second).cancel()

    def _time_up(self, task: Task) -> None:
        if task.live:
            self._end(task, EXPIRED, APPROVAL_EXPIRED if task.state == PENDING else DEADLINE)

    def _watch_together(self, task: Task) -> None:
        second = ceil(task.deadline)
        together = self._together.get(second)
        if together is None:
            together = self._together[second] = {}
            self._seconds[second] = self._alarms.at(second, self._all_over, second)
        together[task.id] = task

    def _all_over(self, second: int) -> None:
        """End some of those whose time was up in this second, and the others behind what others have asked for."""
        together = self._together.get(second, {})
        try:
            for task in list(islice(together.values(), TASKS_ENDED_AT_ONCE)):
                together.pop(task.id, None)
                self._time_up(task)
        finally:  # whatever becomes of one, the others' time is up
            if together:
                self._seconds[second] = self._alarms.after(0, self._all_over, second)
            else:
                self._together.pop(second, None)
                self._seconds.pop(second, None)

    def _watch_idle(self, task: Task) -> None:
        if not task.live or task.type.idle_timeout is None or task.state == PENDING:
            return
        left = task.idle_deadline - self._clock.boot()
        if left <= 0:
            self._end(task, EXPIRED, IDLE)
            return
        task.ring(task.alarms[0], self._alarms.after(left, self._watch_idle, task))
