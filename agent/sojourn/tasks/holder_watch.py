"""What becomes of tasks when their holders change or go."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import structlog

from sojourn.attestation.descent import ProcessKey
from sojourn.audit.journal import Audit
from sojourn.limits import PROCESSES_LOOKED_AT_ONCE, TASKS_ENDED_AT_ONCE
from sojourn.runtime.clock import Alarms
from sojourn.tasks.announcements import Announcements
from sojourn.tasks.holders import Hold, Holders
from sojourn.tasks.registry import LiveTasks
from sojourn.tasks.task import REVOKED, Task
from sojourn.tasktoken.end_reasons import HANDOVER, HOLDER_EXITED

log = structlog.get_logger()
HANDOVER_FIRST_SECONDS = 0.001  # a parent collects its child at once, or not for long
HANDOVER_LAST_SECONDS = 1.0
HOLDER_LOOK_SECONDS = 1.0


class HolderWatch:
    """Ends tasks whose holder has gone, or changed its program or cgroup; hands a helper's one-shot task over.

    `end(task, state, reason)` is the engine's.
    """

    def __init__(
        self,
        tasks: LiveTasks,
        holders: Holders,
        announcements: Announcements,
        audit: Audit,
        alarms: Alarms,
        end: Callable[[Task, str, str], None],
    ) -> None:
        self._tasks = tasks
        self._holders = holders
        self._announcements = announcements
        self._audit = audit
        self._alarms = alarms
        self._end = end
        holders.on_exit(lambda hold: self._tell_some(hold, iter(tasks.of_process(hold.key))))

    def _tell_some(self, hold: Hold, held: Iterator[Task]) -> None:
        """End some of the tasks that a process held which has ended, and the others behind what others have asked for:
        a task of which nobody has heard yet is found over by whoever uses it.
        """
        some = list(islice(held, TASKS_ENDED_AT_ONCE))
        for task in some:
            if task.holder is not hold:
                continue
            try:
                self.gone(task)
            except Exception:
                log.exception("holder_exit_failed", pid=hold.pid)
        if len(some) == TASKS_ENDED_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._tell_some, hold, held)

    def gone(self, task: Task) -> None:
        """The holder has ended."""
        if not task.live or HANDOVER in task.suspensions:
            return
        if task.heir is None:
            self._end(task, REVOKED, HOLDER_EXITED)
            return
        # A one-shot token belongs to whoever ran the helper that fetched it, once that has returned 0. Until the
        # kernel tells how it ended nobody may use the token.
        task.suspend(HANDOVER, HOLDER_EXITED)
        self._announcements.announce(task)
        self._hand_over(task, HANDOVER_FIRST_SECONDS)

    def check(self, task: Task) -> None:
        """End a task whose holder runs another program, or is in another cgroup, by now; or is about to be gone."""
        self._lost(task, self._holders.lost(task.holder) if task.live else "")

    def _lost(self, task: Task, why: str) -> None:
        if why == HOLDER_EXITED:
            self.gone(task)
        elif why and task.live:
            self._end(task, REVOKED, why)

    def look(self) -> None:
        """Check all holders, each process once, some at a time, and look again in a while."""
        self._look_at(self._holders.keys)

    def _look_at(self, keys: Sequence[ProcessKey]) -> None:
        lost = self._holders.lost_of(keys[:PROCESSES_LOOKED_AT_ONCE])
        theirs = [(task, why) for key, why in lost.items() for task in self._tasks.of_process(key)]
        self._lose(iter(theirs), keys[PROCESSES_LOOKED_AT_ONCE:])

    def _lose(self, lost: Iterator[tuple[Task, str]], rest: Sequence[ProcessKey]) -> None:
        """End what is lost, some tasks at a time, and look at the other processes then."""
        some = list(islice(lost, TASKS_ENDED_AT_ONCE))
        for task, why in some:
            self._lost(task, why)
        if len(some) == TASKS_ENDED_AT_ONCE:
            self._alarms.after(0, self._lose, lost, rest)
        elif rest:
            self._alarms.after(0, self._look_at, rest)
        else:
            self._alarms.after(HOLDER_LOOK_SECONDS, self.look)

    def _hand_over(self, task: Task, wait: float) -> None:
        if not task.live:
            return
        status = task.holder.process.exit_status()
        if status is None and wait < HANDOVER_LAST_SECONDS:
            self._alarms.after(wait, self._hand_over, task, wait * 2)
            return
        if status != 0 or task.heir is None or task.heir.process.exited:
            self._end(task, REVOKED, HOLDER_EXITED)
            return
        try:
            heir = self._holders.hold(task.heir.process.again(), task.uid)
        except Exception as error:  # noqa: BLE001  # it may go at any moment; whatever it is, nobody inherits
            log.info("task_not_handed_over", task_id=task.id, reason=str(error))
            self._end(task, REVOKED, HOLDER_EXITED)
            return
        for gone in (task.holder, task.heir):
            gone.release()
        task.pass_to(heir)
        self._tasks.held_anew(task)
        task.resume(HANDOVER)
        self._audit.note("task_handed_over", task=task.id, pid=heir.pid)
        self._announcements.announce(task)
