"""The kill switch: an operator switches a task type or a workload off. None of its tasks lives, and none begins.

Switching off is in force before it is on disk: what stops need not wait. Switching on is on disk first.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from sojourn.audit.journal import Audit, Event
from sojourn.errors import AlreadyExists, LimitExceeded, NotFound
from sojourn.limits import AUDITED_TEXT, REDECIDED_AT_ONCE, TASK_BLOCKS
from sojourn.runtime.clock import Clock
from sojourn.tasks.blocks import TYPE, Block
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.task import Task
from sojourn.tasktoken.end_reasons import BLOCKED, explanation_of


class BlockStore(Protocol):
    """Where blocks are kept."""

    async def save(self, values: Sequence[Block], event: Event) -> None:
        """Keep these in the place of those before, with the audit's record of the change. Raise what the store does."""


class KillSwitch:
    """Changes the engine's blocks, one change at a time."""

    def __init__(self, engine: TaskEngine, store: BlockStore, audit: Audit, clock: Clock) -> None:
        self._engine = engine
        self._store = store
        self._audit = audit
        self._clock = clock
        self._lock = asyncio.Lock()
        self._unwritten = False  # something is off, and the disk does not say so yet

    async def switch_off(self, kind: str, name: str, reason: str, by: Mapping[str, int]) -> Sequence[Task]:
        """End the live tasks of a type or workload, and have none begin. Return those that were live.

        Raise UnknownTaskType, AlreadyExists, LimitExceeded; or what the store raises: it is off then, and may be
        switched off again to have it written.
        """
        if kind == TYPE and not self._engine.no_types:  # without types, what is to be off may have lost its file
            self._engine.type_named(name)
        said = reason[:AUDITED_TEXT] or "no reason given"
        async with self._lock:
            known = self._engine.blocks.all()
            off = any((block.kind, block.name) == (kind, name) for block in known)
            if off and not self._unwritten:
                raise AlreadyExists(f"{name!r} is switched off already")
            if not off and len(known) >= TASK_BLOCKS:
                raise LimitExceeded(f"more than {TASK_BLOCKS} blocks")
            made = Block(kind, name, said, int(self._clock.now().timestamp()))
            self._engine.blocks.replace([*known, made])
            self._unwritten = True
            ended = await self._stop(made, explanation_of(reason))
            event = self._audit.event("tasks_blocked", {kind: name, "reason": said, "ended": len(ended), **by})
            await self._store.save(self._engine.blocks.all(), event)
            self._unwritten = False
        return ended

    async def switch_on(self, kind: str, name: str, by: Mapping[str, int]) -> None:
        """Let tasks of a type or workload begin again. Raise NotFound, or what the store raises: it stays off then."""
        async with self._lock:
            known = self._engine.blocks.all()
            left = [block for block in known if (block.kind, block.name) != (kind, name)]
            if left == known:
                raise NotFound(f"{name[:100]!r} is not switched off")
            await self._store.save(left, self._audit.event("tasks_unblocked", {kind: name, **by}))
            self._engine.blocks.replace(left)
            self._unwritten = False

    async def _stop(self, block: Block, explanation: str) -> Sequence[Task]:
        """End what is live of it. None begins meanwhile, and others have their turn in between."""
        found = [task for task in self._engine.tasks.all() if block.stops(task.type.name, task.spiffe_id)]
        for number, task in enumerate(found, 1):
            if task.live:
                self._engine.stop(task, BLOCKED, explanation)
            if number % REDECIDED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return found
