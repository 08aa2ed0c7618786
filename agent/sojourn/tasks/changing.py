"""Changes of a task that leave it alive: suspended, resumed, narrowed. Authority only ever shrinks."""

from typing import Any

from sojourn.errors import FailedPrecondition, InvalidInput, TaskOver
from sojourn.tasks import rules
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.grants import Authority
from sojourn.tasks.task import Task

OPERATOR, FACTS = "operator", "facts"  # causes of suspension


class Changing:
    """What operators, facts and holders may change of a task of the engine."""

    def __init__(self, engine: TaskEngine) -> None:
        self._engine = engine

    async def suspend(self, task: Task, cause: str, reason: str) -> None:
        """Take a task's authority away for now; its tokens are dead for good. Return when that is on disk."""
        self.hold(task, cause, reason)
        await self._engine.journal.written(task.id)

    def hold(self, task: Task, cause: str, reason: str, **decided: Any) -> None:
        """Suspend a task from now on. It is written later. `decided`: on what, for the audit."""
        if task.live and cause not in task.suspensions:
            task.suspend(cause, reason)
            self._changed(task, "task_suspended", cause=cause, reason=reason, **decided)

    async def resume(self, task: Task, cause: str, *, whole: bool = False) -> None:
        """Take one cause of suspension away. If it was the last, policy is asked again: what it denies now is gone.

        `whole`: it stays suspended instead if policy denies anything (FailedPrecondition). Raises TaskOver if the task
        has ended, also by this, and what the store raises; it stays suspended then.
        """
        if not task.live:
            task.check_active(self._engine.clock.boot())
        if cause not in task.suspensions:
            raise FailedPrecondition(f"the task is not suspended by {cause}")
        if len(task.suspensions) > 1:
            task.resume(cause)
            self._changed(task, "task_resumed", cause=cause)
            await self._engine.journal.written(task.id)
            return
        version, decided = task.version, self._engine.decided(task)
        left = rules.still_allowed(task.type, task.principal(), task.authority, decided.context, decided)
        if whole and left != task.authority:
            raise FailedPrecondition("policy does not allow all that the task holds")
        if not left.grants:
            await self._engine.revoke(task, "policy_changed")
            task.check_active(self._engine.clock.boot())
        await self._engine.journal.written(task.id)
        await self._engine.journal.now(
            task.record_of_resumed(left), self._engine.event("task_resumed", task, cause=cause, **decided.record())
        )
        if not task.live or list(task.suspensions) != [cause] or task.version != version:
            raise TaskOver("the task has changed meanwhile")
        now = rules.still_allowed(task.type, task.principal(), left, self._engine.context(task))
        if now != left:  # a fact has changed meanwhile
            self._changed(task, "task_suspended", cause=cause, reason=task.reason)
            raise TaskOver("what policy reads has changed meanwhile")
        task.resume(cause)
        task.authority = left
        task.version += 1
        self._engine.deadlines.used(task)
        self._engine.feed.publish(task)
        self._engine.tell(task)

    async def narrow(self, task: Task, left: Authority, reason: str) -> None:
        """Give up all but `left`; that cannot be undone. Return when it is on disk.

        Raise ActionOutsideType if the task does not have all of `left`, InvalidInput if that is nothing.
        """
        if not task.live:
            task.check_active(self._engine.clock.boot())
        if not left.grants:
            raise InvalidInput("nothing would be left: complete the task instead")
        rules.check_held(task.authority, left)
        if left != task.authority:
            self.take(task, left, reason)
        await self._engine.journal.written(task.id)

    def take(self, task: Task, left: Authority, reason: str, **decided: Any) -> None:
        """Leave a live task `left`, a part of what it holds, and no more, from now on. It is written later."""
        before, task.authority = task.authority, left
        self._changed(task, "task_narrowed", before=before, reason=reason, **decided)

    def _changed(self, task: Task, event: str, *, before: Authority | None = None, **fields: Any) -> None:
        """A change that takes something away is in force: tell validators and the holder, and have it written."""
        task.version += 1
        self._engine.feed.publish(task, before)
        self._engine.journal.later(task.record(), self._engine.event(event, task, **fields))
        self._engine.tell(task)
