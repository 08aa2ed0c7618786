"""Changes of a task that leave it alive: suspended, resumed, narrowed. Authority only ever shrinks.

What came of the task by delegation follows: a child is suspended while its parent is not active, and has nothing that
its parent has not.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog

from sojourn.errors import FailedPrecondition, InvalidInput, LimitExceeded, SojournError, TaskOver
from sojourn.limits import PROXY_PASSES
from sojourn.policy import rules
from sojourn.runtime.background import Background
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.journal import RETRY_SECONDS
from sojourn.tasks.task import ACTIVE, CASCADED, ONE_SHOT, PENDING, REVOKED, Task
from sojourn.tasktoken.end_reasons import PARENT, PARENT_NARROWED, PARENT_SUSPENDED, POLICY_CHANGED, TOKEN_REVOKED
from sojourn.tasktoken.grants import Authority

log = structlog.get_logger()


class Changing:
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
        self._check_suspended(task, cause)
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

    def _check_suspended(self, task: Task, cause: str) -> None:
        self._engine.deadlines.check(task)
        if not task.live:
            task.check_active(self._engine.clock.boot())
        if cause not in task.suspensions:
            why = f"{task.state}: {task.reason}" if task.reason else task.state
            raise FailedPrecondition(f"the task is not suspended by {cause}, it is {why}")

    async def _resume(self, task: Task, cause: str, who: object, *, whole: bool) -> None:
        await self._engine.journal.settled(task.id)  # what is decided and written next is of its newest state
        self._check_suspended(task, cause)
        if who not in self._resuming.get((task.id, cause), ()):
            raise TaskOver("the task was suspended again meanwhile")
        if len(task.suspensions) > 1:
            task.resume(cause)
            self._changed(task, "task_resumed", cause=cause)
            await self._engine.journal.told(task.id)
            return
        version, kind, revision = task.version, task.type, self._engine.facts_revision
        decided = self._engine.decided(task)
        left = rules.still_allowed(task.type, decided.principal, task.authority, decided.context, decided)
        if whole and left != task.authority:
            raise FailedPrecondition("policy does not allow all that the task holds")
        if not left.grants:
            await self._engine.revoke(task, POLICY_CHANGED)
            task.check_active(self._engine.clock.boot())
        await self._engine.journal.now(
            task.record_of_resumed(left), self._engine.event("task_resumed", task, cause=cause, **decided.record())
        )
        self._engine.deadlines.check(task)
        if not task.live or list(task.suspensions) != [cause] or task.version != version:
            raise TaskOver("the task has changed meanwhile")
        as_decided = task.type is kind and self._engine.facts_revision == revision
        if not as_decided and self._allowed(task, left) != left:
            self._changed(task, "task_suspended", cause=cause, reason=task.reason)
            raise TaskOver("what policy reads has changed meanwhile")
        task.resume(cause)
        task.authority = left
        task.version += 1
        self._engine.deadlines.used(task)
        self._engine.feed.publish(task)
        self._engine.tell(task)
        self._narrow_children(task)
        self._resume_children(task)

    def _allowed(self, task: Task, held: Authority) -> Authority:
        return rules.still_allowed(task.type, task.principal(), held, self._engine.context(task))

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
        before, task.authority = task.authority, left
        self._changed(task, "task_narrowed", before=before, reason=reason, **decided)
        self._narrow_children(task)

    async def note_passes(self, task: Task, origins: Iterable[str]) -> None:
        """Record that the task's egress proxy lets these origins through, too; return when that is on disk.

        Raise TaskOver, LimitExceeded if they are too many, or what the store raises: nothing has changed then.
        """
        await self._engine.settled(task)
        passes = tuple(dict.fromkeys((*task.passes, *origins)))
        if len(passes) > PROXY_PASSES:
            raise LimitExceeded(f"an egress proxy lets no more than {PROXY_PASSES} origins through")
        before, task.passes = task.passes, passes
        try:
            await self._engine.journal.now(task.record(), self._engine.event("egress_passes", task, passes=[*passes]))
        except BaseException:
            task.passes = before
            raise

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
        task.superseded = task.version + 1
        self._changed(task, "tokens_revoked", **fields)

    def _suspend_family(self, task: Task) -> None:
        """A task is not active: nor is what came of it, and tickets for more of it are void."""
        self._engine.tickets.void(task)
        for each in self._engine.family.descendants(task):
            # Also one that is suspended for this already: it may be just about to be resumed, and must not be.
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
                log.info("task_not_resumed", task=task.id, reason=error.public)
                await asyncio.sleep(RETRY_SECONDS)

    async def quiet(self) -> None:
        """Return when nothing is being resumed."""
        await self._background.quiet()

    def _changed(self, task: Task, event: str, *, before: Authority | None = None, **fields: Any) -> None:
        """A change that takes something away is in force: tell validators and the holder, and have it written."""
        task.version += 1
        self._engine.feed.publish(task, before)
        self._engine.journal.later(task.record(), self._engine.event(event, task, **fields))
        self._engine.tell(task)
