"""What services say was used of tasks: counted, and on disk before they are answered.

The end of a task waits for nobody. What its services let through just before, and say just after, counts all the same,
and stands beside the end in the journal (`task_used`).
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from sojourn.audit.journal import Event
from sojourn.errors import InvalidInput, InvalidToken, StoreFailed, TaskOver
from sojourn.limits import ENDED_TASKS_KEPT, LATE_USE_RECORDS, TASK_USE_LATE_SECONDS, USE_WRITE_SECONDS
from sojourn.policy.cedar_schema import recorded_params
from sojourn.quota.lru import Lru
from sojourn.runtime.background import Background
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks
from sojourn.tasks.announcements import Place
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.task import REVOKED, SUSPENDED, Task
from sojourn.tasktoken.end_reasons import BUDGET
from sojourn.tasktoken.grants import Authority
from sojourn.tasktoken.request_record import Served
from sojourn.tasktoken.tokens import TaskToken


@dataclass(slots=True)
class _Over:
    """A task that has just ended. `since`: on the boot clock; `records`: of what came late; `late`: calls at a resource
    for an action that no record has yet.
    """

    since: float
    records: int = 0
    late: Counter[tuple[str, str]] = field(default_factory=Counter)


class UseReports:
    """Counts for tasks that live, and for those that ended no more than TASK_USE_LATE_SECONDS ago."""

    def __init__(self, engine: TaskEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._over: Lru[str, _Over] = Lru(ENDED_TASKS_KEPT, by_age=True)
        self._touched: dict[str, Task] = {}  # whose uses are not on disk
        self._writing = asyncio.Lock()
        self._begun: asyncio.Future[None] | None = None  # the last write
        self._background = Background("use_not_written")
        self.on_use: Hooks[[Task, int]] = Hooks()  # calls of a task were counted
        engine.announcements.subscribe(Place.USE_REPORTS, self._announced)

    def count(self, task: Task, token: TaskToken, action: str, calls: int) -> bool:
        """Count calls for an action that a token of the task allows. False: they come too late, or end the task."""
        good = self._count_live(task, token, action, calls) if task.live else None
        if good is None:  # it ended before
            good = self._count_late(task, token.resource, action, calls)
            if not good:
                return False
        self._touched[task.id] = task
        self.on_use.tell(task, calls)
        return good

    def passed(self, task: Task, resource: str, action: str) -> None:
        """Count a call that passes here, by the agent's own word. Raise TaskOver if it is one too many."""
        self._engine.report_use(task, resource, action)
        self.on_use.tell(task, 1)

    def _count_live(self, task: Task, token: TaskToken, action: str, calls: int) -> bool | None:
        """None: looking at it has shown that it is over."""
        before = task.calls
        try:
            self._engine.report_use(task, token.resource, action, calls)
        except (TaskOver, InvalidInput):
            if task.calls != before:
                return task.live
            if not task.live:
                return None
            task.count_calls(token.resource, action, calls)  # it was suspended or narrowed since they were let through
        return True

    def _count_late(self, task: Task, resource: str, action: str, calls: int) -> bool:
        over = self._over.get(task.id)
        if over is None or self._clock.boot() > over.since + TASK_USE_LATE_SECONDS:
            return False
        if over.records >= LATE_USE_RECORDS:
            return False
        task.count_calls(resource, action, calls)
        over.late[resource, action] += calls
        root = next(iter(self._engine.family.line(task)), None)
        if root is not None and root.live:  # they share what they may spend
            self._touched[root.id] = root
            if root.type.max_reported_calls is not None and root.spent.calls > root.type.max_reported_calls:
                self._engine.end(root, REVOKED, BUDGET)
        return True

    async def served(self, token: TaskToken, said: Served) -> None:
        """Return when it is on disk what a token that is good once is used for.

        Raise TaskOver if its task has ended or changed meanwhile, InvalidToken if nobody knows it, or StoreFailed.
        """
        task = self._engine.tasks.find(token.task_id)
        if task is None:
            raise InvalidToken("the task is over", reason_code="task_over")
        about = {"resource": token.resource, "jti": token.claims.get("jti"), **said.params(token), **said.record()}
        about["params"] = recorded_params(about["params"], task.hidden_params, self._engine.people_key)
        await self._engine.note_use(task, self._engine.event("token_used", task, **about))
        self._engine.check_token(token)

    async def written(self) -> None:
        """Return when all that was counted is on disk. Raise StoreFailed."""
        async with self._writing:  # also what another has begun to write
            try:
                async with asyncio.timeout(USE_WRITE_SECONDS):
                    if self._begun is not None and not self._begun.done():  # whether it is on disk must be known first
                        await asyncio.wait([self._begun])
                    self._begun = self._background.run(self._write())
                    await asyncio.shield(self._begun)
            except TimeoutError as error:
                raise StoreFailed("what was used is counted, and could not be written yet") from error

    async def _write(self) -> None:
        """Write what was counted until now. It is gone through with although nobody waits any more: a record of what
        came late says how much that was, and is written once.
        """
        touched, self._touched = self._touched, {}
        told: list[tuple[_Over, Counter[tuple[str, str]]]] = []
        try:
            for task in touched.values():
                await self._engine.journal.written(task.id)  # its end stands before what is said after it
            late = [self._late(task, told) for task in touched.values() if not task.live]
            # A suspended task may be on its way back: its uses are written with its next change.
            records = [task.record() for task in touched.values() if task.state != SUSPENDED]
            await self._engine.journal.counted(records, late)
        except BaseException:
            self._touched = touched | self._touched
            for over, calls in told:
                over.late.update(calls)
            raise

    def _late(self, task: Task, told: list[tuple[_Over, Counter[tuple[str, str]]]]) -> Event:
        """The record of what came late of a task; `told` has what it says."""
        more: list[list[object]] = []
        over = self._over.get(task.id)
        if over is not None:
            over.records += 1
            calls, over.late = over.late, Counter()
            told.append((over, calls))
            more = [[*of, number] for of, number in calls.items()]
        spent = None if task.depth else [task.spent.tokens, task.spent.calls]
        fields = {"calls": task.calls, "use": task.usage(), "late": more, "spent": spent}
        fields["children"] = task.handed_on or None
        return self._engine.event("task_used", task, **fields)

    def _announced(self, task: Task, _before: Authority | None) -> None:
        if task.live:
            return
        now = self._clock.boot()
        self._over.put(task.id, _Over(now))
        self._over.drop_while(lambda over: over.since + TASK_USE_LATE_SECONDS < now)
