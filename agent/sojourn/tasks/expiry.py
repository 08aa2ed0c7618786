"""When tasks end by themselves: their time is up, or they were not used for too long. Both on the boot clock.

There may be tens of thousands of one-shot tasks, of a minute each: those whose time is up in the same second end
together when it is over. Until then they have ended all the same for whoever uses one. A task that ends before its time
leaves its ID among them until then, and nothing else.
"""

from collections.abc import Callable
from math import ceil

from sojourn.limits import PERSON_EXPIRES_TOLD_SECONDS, TASKS_ENDED_AT_ONCE
from sojourn.runtime.clock import Alarms, Clock
from sojourn.tasks.kept_fields import ONE_SHOT
from sojourn.tasks.registry import LiveTasks
from sojourn.tasks.task import EXPIRED, PENDING, Task
from sojourn.tasktoken.end_reasons import APPROVAL_EXPIRED, DEADLINE, IDLE, PERSON_EXPIRED


class Deadlines:
    """Watches tasks. `end(task, state, reason)` is the engine's; `tell_holder` has a holder look at the task again."""

    def __init__(
        self,
        tasks: LiveTasks,
        clock: Clock,
        alarms: Alarms,
        end: Callable[[Task, str, str], None],
        tell_holder: Callable[[Task], None] = lambda _task: None,
    ) -> None:
        self._tasks = tasks
        self._clock = clock
        self._alarms = alarms
        self._end = end
        self._tell_holder = tell_holder
        self._over, self._soon = self._time_up, self._over_soon  # one for all alarms
        self._together: dict[int, list[str]] = {}  # IDs of one-shot tasks by the second that is over then

    def watch(self, task: Task) -> None:
        """End the task when its time is up, or when it was not used for too long; what was set before is off."""
        self.forget(task)
        if task.binding == ONE_SHOT and task.state != PENDING and task.type.idle_timeout is None:
            task.ring()
            self._watch_together(task)
            return
        if task.ends_with_person:
            soon = max(self._clock.boot(), task.deadline - PERSON_EXPIRES_TOLD_SECONDS)
            task.ring(self._alarms.at(soon, self._soon, task))
        else:
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

    def _over_soon(self, task: Task) -> None:
        """The token of the task's person ends soon: its holder is told, and the task ends when it does."""
        task.ring(self._alarms.at(task.deadline, self._over, task), *task.alarms[1:])
        self._tell_holder(task)

    def _time_up(self, task: Task) -> None:
        if not task.live:
            return
        reason = APPROVAL_EXPIRED if task.state == PENDING else DEADLINE
        self._end(task, EXPIRED, PERSON_EXPIRED if task.ends_with_person else reason)

    def _watch_together(self, task: Task) -> None:
        second = ceil(task.deadline)
        if second not in self._together:
            self._together[second] = []
            self._alarms.at(second, self._all_over, second)
        self._together[second].append(task.id)

    def _all_over(self, second: int) -> None:
        """End some of those whose time was up in this second, and the others behind what others have asked for."""
        together = self._together[second]
        try:
            for _ in range(min(len(together), TASKS_ENDED_AT_ONCE)):
                task = self._tasks.find(together.pop())
                if task is not None and self._clock.boot() >= task.deadline:  # it may have more time by now
                    self._time_up(task)
        finally:  # whatever becomes of one, the others' time is up
            if together:
                self._alarms.after(0, self._all_over, second)
            else:
                del self._together[second]

    def _watch_idle(self, task: Task) -> None:
        if not task.live or task.type.idle_timeout is None or task.state == PENDING:
            return
        left = task.idle_deadline - self._clock.boot()
        if left <= 0:
            self._end(task, EXPIRED, IDLE)
            return
        task.ring(task.alarms[0], self._alarms.after(left, self._watch_idle, task))
