"""Giving tasks that outlived a restart of the agent back to their holders.

Only the process that held a task gets it back, as the identity that it had, and policy is asked again.
"""

from collections.abc import Sequence

from sojourn.attestation.peer import Peer
from sojourn.errors import FailedPrecondition, InvalidInput, NotFound, PolicyDenied
from sojourn.errors.oauth import ShuttingDown
from sojourn.identity.entries import Entry
from sojourn.identity.identities import Identities
from sojourn.runtime.single_flight import SingleFlight
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.kept_fields import PROCESS, STREAM
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.task import Task
from sojourn.tasktoken.end_reasons import RESTART


class Reattachment:
    """Re-attaches holders: that of a process-bound task by any call about it, that of a stream by a new stream."""

    def __init__(self, engine: TaskEngine, changing: TaskChanges, identities: Identities) -> None:
        self._engine = engine
        self._changing = changing
        self._identities = identities
        self._resuming = SingleFlight[str, None]()
        self._with_stream: set[str] = set()

    async def of_caller(self, peer: Peer, entries: Sequence[Entry], task_id: str) -> Task:
        """A task that the caller may use, given back to its holder first if it is bound to a process.

        Raises NotFound for any other, whether it exists or not; and TaskOver if policy leaves nothing of it.
        """
        task = self._engine.tasks.of_caller(peer, entries, task_id)
        if task.binding == PROCESS and _waits(task):
            await self._check_holder(peer, task)
            if _waits(task):
                await self._resuming.run(task.id, lambda: self._resume(task))
        return task

    async def by_stream(self, peer: Peer, entries: Sequence[Entry], task_id: str) -> Task:
        """Give a task back to its holder, whose stream this is: from now on the task is that stream.

        Raises NotFound unless the caller is the holder itself, FailedPrecondition if the task has its stream, and
        TaskOver if it is over, also by this.
        """
        task = self._engine.tasks.of_caller(peer, entries, task_id)
        if not _is_holder(peer, task):
            raise NotFound("there is no such task")
        if task.binding != STREAM:
            raise InvalidInput("the task is bound to a process: attach by AttachTask")
        if self._engine.closing:
            raise ShuttingDown
        if not task.live:
            task.check_active(self._engine.clock.boot())
        if not _waits(task) or task.id in self._with_stream:
            raise FailedPrecondition("the task has its stream")
        self._with_stream.add(task.id)
        try:
            await self._resume(task)
        finally:
            self._with_stream.discard(task.id)
        return task

    async def _check_holder(self, peer: Peer, task: Task) -> None:
        """The caller has the task's identity; if it is not the holder itself, the holder must have it too."""
        if not _is_holder(peer, task) and not await self._identities.process_has(task.holder.pid, {task.spiffe_id}):
            raise PolicyDenied("the process that holds the task has not the task's identity any more")

    async def _resume(self, task: Task) -> None:
        self._engine.holding.check(task)
        await self._changing.resume(task, RESTART)


def _waits(task: Task) -> bool:
    return task.live and RESTART in task.suspensions


def _is_holder(peer: Peer, task: Task) -> bool:
    return peer.process.key == task.holder.process.key
