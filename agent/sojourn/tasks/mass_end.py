"""Ending many tasks: none of them is good for anything from the first step on, and they end some at a time, so that
nobody who asks for something else waits for all of it.
"""

import asyncio
from collections.abc import Sequence

from sojourn.identity.entry_changes import Change
from sojourn.limits import TASKS_ENDED_AT_ONCE
from sojourn.runtime.background import Background
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.task import REVOKED, Task
from sojourn.tasktoken.end_reasons import ATTESTATION_CHANGED


async def end_all(engine: TaskEngine, tasks: Sequence[Task], state: str, reason: str, explanation: str = "") -> None:
    """End these tasks with all that came of them, and return when all have ended. One that has ended stays as it is.

    `explanation`: an operator's words.
    """
    _doom(engine, tasks, reason)
    for start in range(0, len(tasks), TASKS_ENDED_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        _end(engine, tasks[start : start + TASKS_ENDED_AT_ONCE], state, reason, explanation)


def _doom(engine: TaskEngine, tasks: Sequence[Task], reason: str) -> None:
    for task in tasks:
        for each in (task, *engine.family.descendants(task)):
            each.will_end(reason)


def _end(engine: TaskEngine, tasks: Sequence[Task], state: str, reason: str, explanation: str = "") -> None:
    for task in tasks:
        if task.live:
            engine.end(task, state, reason, explanation=explanation)


class MassEnd:
    """Ends many tasks for whoever cannot wait for it."""

    def __init__(self, engine: TaskEngine) -> None:
        self.engine = engine
        self._background = Background("tasks_not_ended")

    def end_all(self, tasks: Sequence[Task], state: str, reason: str) -> None:
        """As `end_all`: the first ones have ended when this returns, and the others are good for nothing."""
        first, others = tasks[:TASKS_ENDED_AT_ONCE], tasks[TASKS_ENDED_AT_ONCE:]
        _doom(self.engine, tasks, reason)
        _end(self.engine, first, state, reason)
        if others:
            self._background.run(end_all(self.engine, others, state, reason))

    def entries_changed(self, changes: Sequence[Change]) -> None:
        """End the tasks whose holder has lost the entry that earned it its identity."""
        lost = dict.fromkeys(change.old.id for change in changes if change.old is not None and _is_lost(change))
        found = [task for entry_id in lost for task in self.engine.tasks.of_entry(entry_id)]
        self.end_all(found, REVOKED, ATTESTATION_CHANGED)

    async def quiet(self) -> None:
        """Return when all have ended that are to."""
        await self._background.quiet()


def _is_lost(change: Change) -> bool:
    """Whether a holder that had the old entry has not the new one for sure."""
    old, new = change.old, change.new
    return old is not None and (
        new is None
        or not change.served
        or new.spiffe_id != old.spiffe_id
        or not new.selectors <= old.selectors
        or not set(new.placeholders) <= set(old.placeholders)
    )
