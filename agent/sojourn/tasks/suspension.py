"""Changes of a task that leave it alive: suspended, resumed, narrowed. Authority only ever shrinks.

What came of the task by delegation follows: a child is suspended while its parent is not active, and has nothing that
its parent has not.
"""

import asyncio
from collections.abc import Iterable
from copy import copy
from typing import Any

import structlog

from sojourn.audit.journal import Event
from sojourn.errors import FailedPrecondition, InvalidInput, LimitExceeded, SojournError, TaskOver
from sojourn.limits import PROXY_PASSES
from sojourn.policy import rules
from sojourn.runtime.background import Background
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.kept_fields import ONE_SHOT
from sojourn.tasks.shadow_policy import Decided
from sojourn.tasks.task import ACTIVE, CASCADED, PENDING, REVOKED, Task
from sojourn.tasks.task_record import TaskRecord
from sojourn.tasks.transitions import Transition, grant, take
from sojourn.tasktoken.end_reasons import PARENT, PARENT_NARROWED, PARENT_SUSPENDED, POLICY_CHANGED, TOKEN_REVOKED
from sojourn.tasktoken.grants import Authority

log = structlog.get_logger()


class Resume(Transition):
    """A task that is suspended by one cause alone is active again."""

    def __init__(self, changing: "TaskChanges", engine: TaskEngine, task: Task, cause: str, *, whole: bool) -> None:
        super().__init__(engine, task)
        self._changing = changing
        self._cause = cause
        self._whole = whole

    def check(self) -> None:
        self._changing.check_suspended(self.task, self._cause)
        if list(self.task.suspensions) != [self._cause]:
            raise TaskOver("the task has changed meanwhile")

    def left(self, authority: Authority) -> None:
        if self._whole and authority != self.wanted:
            raise FailedPrecondition("policy does not allow all that the task holds")
        if not authority.grants:
            self.engine.end(self.task, REVOKED, POLICY_CHANGED)
            self.task.check_live(self.engine.clock.boot())
        self._left = authority

    def record(self) -> TaskRecord:
        return self.task.record_of_resumed(self._left)

    def event(self, decided: Decided) -> Event:
        return self.engine.event("task_resumed", self.task, cause=self._cause, **decided.record())

    def make_true(self, _decided: Decided) -> None:
        self.task.come_back(self._cause, self._left, self.engine.clock.boot())

    def denied(self) -> None:
        take(self.engine, self.task, "task_suspended", cause=self._cause, reason=self.task.reason)


class LetThrough(Transition):
    """The task's egress proxy lets more origins through."""

    def __init__(self, engine: TaskEngine, task: Task, origins: Iterable[str]) -> None:
        super().__init__(engine, task)
        self._origins = tuple(origins)

    def check(self) -> None:
        self.engine.check_active(self.task)

    def decide(self, _decided: Decided) -> Authority:
        return self.wanted  # policy has no say in what has no authority of the task

    def left(self, _authority: Authority) -> None:
        self._passes = tuple(dict.fromkeys((*self.task.passes, *self._origins)))
        if len(self._passes) > PROXY_PASSES:
            raise LimitExceeded(f"an egress proxy lets no more than {PROXY_PASSES} origins through")

    def record(self) -> TaskRecord:
        after = copy(self.task)
        after.let_through(self._passes)
        return after.record()

    def event(self, _decided: Decided) -> Event:
        return self.engine.event("egress_passes", self.task, passes=[*self._passes])

    def make_true(self, _decided: Decided) -> None:
        self.task.let_through(self._passes)


class TaskChanges:
    """What operators, facts and holders may change of a task of the engine."""

    def __init__(self, engine: TaskEngine) -> None:
        self._engine = engine
        self._resuming: dict[tuple[str, str], set[object]] = {}  # (task, cause): who has it resumed
        self._background = Background("task_change_failed")

    async def suspend(self, task: Task, cause: str, reason: str) -> None:
        """Take a task's authority away for now; its tokens are dead for good. Return when that is on disk, or raise
        NotOnDisk.
        """
        if task.state == PENDING:
            raise FailedPrecondition("the task waits for approval and has no authority yet: deny or revoke it")
        self.hold(task, cause, reason)
        await self._engine.journal.told(task.id)

    def hold(self, task: Task, cause: str, reason: str, **decided: Any) -> None:
        """Suspend a task from now on. It is written later. `decided`: on what, for the audit."""
        # One that is suspended for this already may be just about to be resumed, and must not be.
        again = self._resuming.pop((task.id, cause), None) is not None
        if task.live and (cause not in task.suspensions or again):
            was_active = task.state == ACTIVE
            task.suspend(cause, reason)
            self._changed(task, "task_suspended", cause=cause, reason=reason, **decided)
            if was_active:
                self._suspend_family(task)

    async def resume(self, task: Task, cause: str, *, whole: bool = False) -> None:
        """Take one cause of suspension away. If it was the last, policy is asked again: what it denies now is gone.

        `whole`: it stays suspended instead if policy denies anything (FailedPrecondition). Raises TaskOver if the task
        has ended, also by this, and what the store raises; it stays suspended then. It goes on although the caller goes
        away meanwhile.
        """
        self.check_suspended(task, cause)
        key, me = (task.id, cause), object()
        self._resuming.setdefault(key, set()).add(me)

        async def resume() -> None:
            try:
                await self._resume(task, cause, me, whole=whole)
            finally:
                others = self._resuming.get(key, set())
                others.discard(me)
                if not others:
                    self._resuming.pop(key, None)

        await asyncio.shield(self._background.run(resume()))

    def check_suspended(self, task: Task, cause: str) -> None:
        """Raise FailedPrecondition unless the task is suspended by this, TaskOver if it has ended."""
        self._engine.deadlines.check(task)
        if not task.live:
            task.check_active(self._engine.clock.boot())
        if cause not in task.suspensions:
            why = f"{task.state}: {task.reason}" if task.reason else task.state
            raise FailedPrecondition(f"the task is not suspended by {cause}, it is {why}")

    async def _resume(self, task: Task, cause: str, who: object, *, whole: bool) -> None:
        await self._engine.journal.settled(task.id)  # what is decided and written next is of its newest state
        self.check_suspended(task, cause)
        if who not in self._resuming.get((task.id, cause), ()):
            raise TaskOver("the task was suspended again meanwhile")
        if len(task.suspensions) > 1:
            task.resume(cause)
            self._changed(task, "task_resumed", cause=cause)
            await self._engine.journal.told(task.id)
            return
        try:
            await grant(Resume(self, self._engine, task, cause, whole=whole))
        except TaskOver:
            await self._engine.journal.told(task.id)  # an end that this is due to, first
            raise
        self._narrow_children(task)
        self._resume_children(task)

    async def narrow(self, task: Task, left: Authority, reason: str) -> None:
        """Give up all but `left`; that cannot be undone. Return when it is on disk.

        Raise ActionOutsideType if the task does not have all of `left`, InvalidInput if that is nothing, NotOnDisk if
        the disk has not taken it yet.
        """
        if not task.live:
            task.check_active(self._engine.clock.boot())
        if not left.grants:
            raise InvalidInput("nothing would be left: complete the task instead")
        rules.check_held(task.authority, left)
        if left != task.authority:
            self.take(task, left, reason)
        await self._engine.journal.told(task.id)

    def take(self, task: Task, left: Authority, reason: str, **decided: Any) -> None:
        """Leave a live task `left`, a part of what it holds, and no more, from now on. It is written later."""
        before = task.narrow(left)
        self._changed(task, "task_narrowed", before=before, reason=reason, grants=left.document(), **decided)
        self._narrow_children(task)

    async def note_passes(self, task: Task, origins: Iterable[str]) -> None:
        """Record that the task's egress proxy lets these origins through, too; return when that is on disk.

        Raise TaskOver, LimitExceeded if they are too many, or what the store raises: nothing has changed then. It goes
        on although the caller goes away meanwhile.
        """
        await asyncio.shield(self._background.run(grant(LetThrough(self._engine, task, origins))))

    def supersede(self, task: Task, **by: Any) -> None:
        """Let every token of a live task die, and what came of them; the task lives on, and its holder gets new ones.

        A one-shot task ends: it was for its token. It is written later. `by`: who wanted it, for the audit.
        """
        if task.binding == ONE_SHOT:
            self._engine.end(task, REVOKED, TOKEN_REVOKED, **by)
            return
        self._supersede(task, **by)
        for each in self._engine.family.descendants(task):
            if not each.live:
                continue
            if each.binding == ONE_SHOT:
                self._engine.end(each, CASCADED, TOKEN_REVOKED)
            else:
                self._supersede(each, parent=task.id)

    def _supersede(self, task: Task, **fields: Any) -> None:
        task.supersede()
        self._changed(task, "tokens_revoked", **fields)

    def _suspend_family(self, task: Task) -> None:
        """A task is not active: nor is what came of it, and tickets for more of it are void."""
        self._engine.tickets.void(task)
        for each in self._engine.family.descendants(task):
            # Also one that is suspended for this already: it may be just about to be resumed, and must not be.
            self._resuming.pop((each.id, PARENT), None)
            each.suspend(PARENT, PARENT_SUSPENDED)
            self._engine.tickets.void(each)
            self._changed(each, "task_suspended", cause=PARENT, reason=PARENT_SUSPENDED)

    def _narrow_children(self, task: Task) -> None:
        """Leave a task's children only what it has itself; one that is left nothing ends."""
        for each in self._engine.family.children(task):
            left = each.authority.within(task.authority)
            if not left.grants:
                self._engine.end(each, CASCADED, PARENT_NARROWED)
            elif left != each.authority:
                self.take(each, left, PARENT_NARROWED)

    def _resume_children(self, task: Task) -> None:
        """A task is active again: so are its children, in a moment, if nothing else is against it."""
        for each in self._engine.family.children(task):
            if PARENT in each.suspensions:
                self._background.run(self._follow(each, task))

    async def _follow(self, task: Task, parent: Task) -> None:
        """Resume a child after its parent; try again while it cannot be written, or was changed at that moment."""
        while task.live and parent.state == ACTIVE and PARENT in task.suspensions:
            try:
                await self.resume(task, PARENT)
            except SojournError as error:
                log.info("task_not_resumed", task_id=task.id, reason=error.public)
                await asyncio.sleep(self._engine.journal.retry_seconds)

    async def quiet(self) -> None:
        """Return when nothing is being resumed."""
        await self._background.quiet()

    def _changed(self, task: Task, event: str, *, before: Authority | None = None, **fields: Any) -> None:
        take(self._engine, task, event, before=before, **fields)
