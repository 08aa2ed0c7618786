"""The tasks that live, and those that ended a while ago."""

from collections.abc import Callable, Sequence

from sojourn.attestation.peer import Peer
from sojourn.errors import LimitExceeded, NotFound
from sojourn.identity.entries import Entry
from sojourn.limits import ENDED_TASKS_KEPT, LIVE_TASKS, LIVE_TASKS_PER_UID, REMOTE_TASKS_PER_ID
from sojourn.quota.lru import Lru
from sojourn.quota.shares import may_take
from sojourn.quota.usage import Usage
from sojourn.tasks.task import Task


class LiveTasks:
    """Tasks by their ID. Those that ended are kept to say why, ENDED_TASKS_KEPT of them."""

    def __init__(self, user: Callable[[int], int] = lambda uid: uid) -> None:
        """`user`: who may become a uid, and so takes its share."""
        self._user = user
        self._live: dict[str, Task] = {}
        self._ended: Lru[str, Task] = Lru(ENDED_TASKS_KEPT, by_age=True)
        self._per_owner = Usage[int | str]()
        self._counted: dict[str, int | str] = {}  # as whose each live one counts
        self._by_type: dict[str, dict[str, dict[str, Task]]] = {}  # type -> workload -> ID
        self._by_entry: dict[str, dict[str, Task]] = {}  # entry -> ID
        self._forgotten: dict[str, Callable[[], object]] = {}

    def __len__(self) -> int:
        return len(self._live)

    def all(self) -> list[Task]:
        return list(self._live.values())

    def of_type(self, name: str, spiffe_id: str = "") -> list[Task]:
        """The live tasks of a type: all, or those of one workload."""
        found = self._by_type.get(name, {})
        some = [found.get(spiffe_id, {})] if spiffe_id else found.values()
        return [task for each in some for task in each.values()]

    def of_entry(self, entry_id: str) -> list[Task]:
        """The live tasks that were begun with the identity of an entry."""
        return list(self._by_entry.get(entry_id, {}).values())

    def ended(self) -> list[Task]:
        """Recently ended tasks, oldest first."""
        return self._ended.values()

    def find(self, task_id: str) -> Task | None:
        """A live or recently ended task."""
        return self._live.get(task_id) or self._ended.get(task_id)

    def is_live(self, task_id: str) -> bool:
        return task_id in self._live

    def of_caller(self, peer: Peer, entries: Sequence[Entry], task_id: str) -> Task:
        """A task that the caller may use. Raise NotFound for any other, whether it exists or not."""
        task = self.find(task_id)
        if task is not None and any(entry.spiffe_id == task.spiffe_id for entry in entries):
            caller, holder = peer.process, task.holder.process
            if (caller.pid, caller.start_time) == (holder.pid, holder.start_time):
                return task
            if task.session and caller.descends_from(holder):
                return task
        raise NotFound("there is no such task")

    def check_room(self, owner: int | str) -> None:
        """Raise LimitExceeded if no further task of this uid's user, or of this remote SPIFFE ID, may live."""
        room = LIVE_TASKS_PER_UID if isinstance(owner, int) else REMOTE_TASKS_PER_ID
        own = self._per_owner[self._whose(owner)]
        if own >= room or not may_take(own, len(self._live), LIVE_TASKS):
            raise LimitExceeded("too many tasks are live")

    def _whose(self, owner: int | str) -> int | str:
        return self._user(owner) if isinstance(owner, int) else owner

    def add(self, task: Task) -> None:
        self._live[task.id] = task
        self._by_type.setdefault(task.type.name, {}).setdefault(str(task.spiffe_id), {})[task.id] = task
        self._by_entry.setdefault(task.entry_id, {})[task.id] = task
        self._counted[task.id] = self._whose(task.owner)
        self._per_owner.add(self._counted[task.id])

    def remove(self, task: Task, *, keep: bool) -> None:
        """Take a task out of the live ones; with `keep` it is among those that ended."""
        if self._live.pop(task.id, None) is not None:
            self._per_owner.remove(self._counted.pop(task.id))
            of_type = self._by_type[task.type.name]
            of_workload = of_type[str(task.spiffe_id)]
            del of_workload[task.id]
            if not of_workload:
                del of_type[str(task.spiffe_id)]
            of_entry = self._by_entry[task.entry_id]
            del of_entry[task.id]
            if not of_entry:
                del self._by_entry[task.entry_id]
        if keep:
            gone = self._ended.put(task.id, task)
            if gone is not None:
                self._tell(gone[0])
        else:
            self._tell(task.id)

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
