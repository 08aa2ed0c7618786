"""The tasks that live, and those that ended a while ago."""

from collections.abc import Callable, Sequence
from heapq import nlargest
from sys import getsizeof

from sojourn.attestation.descent import ProcessKey
from sojourn.attestation.peer import Peer
from sojourn.errors import LimitExceeded, NotFound
from sojourn.identity.entries import Entry
from sojourn.limits import (
    ENDED_TASKS_KEPT,
    ENDED_TASKS_PARAM_BYTES,
    LIVE_TASKS,
    LIVE_TASKS_PARAM_BYTES,
    LIVE_TASKS_PER_UID,
    REMOTE_TASKS_PER_ID,
)
from sojourn.quota.lru import Lru
from sojourn.quota.shares import may_take
from sojourn.quota.usage import Usage
from sojourn.tasks.lots import Lots
from sojourn.tasks.people_index import PeopleIndex
from sojourn.tasks.task import Task


class LiveTasks:
    """Tasks by their ID. Those that ended are kept to say why: ENDED_TASKS_KEPT, or fewer with long parameters."""

    def __init__(self, user: Callable[[int], int] = lambda uid: uid) -> None:
        """`user`: who may become a uid, and so takes its share."""
        self.room = LIVE_TASKS  # of all users together
        self.param_bytes = LIVE_TASKS_PARAM_BYTES
        self._user = user
        self._live = Lots()
        self._ended: Lru[str, Task] = Lru(ENDED_TASKS_KEPT, by_age=True)
        self._per_owner = Usage[int | str]()
        self._weights: dict[str, int] = {}  # bytes of parameters of each task that has some
        self._weight_of = Usage[int | str]()  # those of live ones, by owner
        self._live_weight = self._ended_weight = 0
        self.people = PeopleIndex()
        self._forgotten: dict[str, Callable[[], object]] = {}

    def __len__(self) -> int:
        return len(self._live)

    def all(self) -> list[Task]:
        return list(self._live)

    def of_type(self, name: str, spiffe_id: str = "") -> list[Task]:
        """The live tasks of a type: all, or those of one workload."""
        return self._live.of_type(name, spiffe_id)

    def of_entry(self, entry_id: str) -> list[Task]:
        """The live tasks that were begun with the identity of an entry."""
        return self._live.of_entry(entry_id)

    def of_process(self, process: ProcessKey) -> list[Task]:
        """The live tasks that a process holds."""
        return self._live.of_process(process)

    def ended(self) -> list[Task]:
        """Recently ended tasks, oldest first."""
        return self._ended.values()

    def find(self, task_id: str) -> Task | None:
        """A live or recently ended task."""
        return self._live.find(task_id) or self._ended.get(task_id)

    def is_live(self, task_id: str) -> bool:
        return task_id in self._live

    def of_caller(self, peer: Peer, entries: Sequence[Entry], task_id: str) -> Task:
        """A task that the caller may use. Raise NotFound for any other, whether it exists or not."""
        task = self.find(task_id)
        if task is not None and any(entry.spiffe_id == task.spiffe_id for entry in entries):
            caller, holder = peer.process, task.holder.process
            if caller.key == holder.key:
                return task
            if task.session and caller.descends_from(holder):
                return task
        raise NotFound("there is no such task")

    def owners(self, most: int) -> tuple[list[tuple[int | str, int, int]], int]:
        """Whose the live tasks are: the user or the remote SPIFFE ID, how many, and how many there may be; no more than
        `most` rows, those with the most tasks first. And how many other owners there are.
        """
        found = nlargest(most, self._per_owner.items(), key=lambda each: (each[1], str(each[0])))
        return [(owner, count, _room_of(owner)) for owner, count in found], max(0, len(self._per_owner) - most)

    def check_room(self, owner: int | str) -> None:
        """Raise LimitExceeded if no further task of this uid's user, or of this remote SPIFFE ID, may live."""
        room, whose = _room_of(owner), self._whose(owner)
        own = self._per_owner[whose]
        if own >= room or not may_take(own, len(self._live), self.room):
            raise LimitExceeded("too many tasks are live")
        if not may_take(self._weight_of[whose], self._live_weight, self.param_bytes):
            raise LimitExceeded("the parameters of the tasks that are live are too long together")

    def _whose(self, owner: int | str) -> int | str:
        return self._user(owner) if isinstance(owner, int) else owner

    def add(self, task: Task) -> None:
        owner = self._whose(task.owner)
        self._live.add(task, owner)
        self._per_owner.add(owner)
        if task.params:
            weight = self._weights[task.id] = _weight(task)
            self._weight_of.add(owner, weight)
            self._live_weight += weight
        self.people.add(task)

    def held_anew(self, task: Task) -> None:
        """Another process holds a live task than before."""
        self._live.held_anew(task)

    def remove(self, task: Task, *, keep: bool) -> None:
        """Take a task out of the live ones; with `keep` it is among those that ended."""
        owner = self._live.remove(task.id)
        weight = self._weights.get(task.id, 0)
        if owner is not None:
            self._per_owner.remove(owner)
            self._weight_of.remove(owner, weight)
            self._live_weight -= weight
            self.people.remove(task)
        if keep:
            gone = self._ended.put(task.id, task)
            self._ended_weight += weight
            if gone is not None:
                self._forget(gone[0])
            while self._ended_weight > ENDED_TASKS_PARAM_BYTES:
                oldest = next(iter(self._ended))
                self._ended.drop(oldest)
                self._forget(oldest)
        else:
            self._weights.pop(task.id, None)
            self._tell(task.id)

    def _forget(self, task_id: str) -> None:
        """One that ended is not kept any more."""
        self._ended_weight -= self._weights.pop(task_id, 0)
        self._tell(task_id)

    def on_forget(self, task: Task, hook: Callable[[], object]) -> None:
        """Call `hook` when the task is no longer known here."""
        if self.find(task.id) is task:
            self._forgotten[task.id] = hook
        else:
            hook()

    def _tell(self, task_id: str) -> None:
        hook = self._forgotten.pop(task_id, None)
        if hook is not None:
            hook()


def _weight(task: Task) -> int:
    """Bytes that the parameters of a task take in memory."""
    return sum(getsizeof(name) + getsizeof(value) for name, value in task.params.items())


def _room_of(owner: int | str) -> int:
    """How many live tasks a uid's user, or a remote SPIFFE ID, may have."""
    return LIVE_TASKS_PER_UID if isinstance(owner, int) else REMOTE_TASKS_PER_ID
