"""The credentials that are not gone, in memory: found by their task, and counted."""

from collections import Counter

from sojourn.credentials.credential import HELD, Credential
from sojourn.errors import LimitExceeded
from sojourn.limits import PROVIDER_CREDENTIALS, PROVIDER_CREDENTIALS_PER_ID, PROVIDER_CREDENTIALS_PER_TASK
from sojourn.quota.usage import Usage
from sojourn.tasks.task import Task


class Index:
    """Credentials by task, and how many there are of each provider in each state.

    `counts` and `oldest` may be called from any thread.
    """

    def __init__(self) -> None:
        self.room = PROVIDER_CREDENTIALS  # of all tasks together
        self.room_per_task = PROVIDER_CREDENTIALS_PER_TASK
        self.room_per_workload = PROVIDER_CREDENTIALS_PER_ID
        self._all: dict[str, Credential] = {}
        self._by_task: dict[str, dict[str, Credential]] = {}
        self._per_workload = Usage[str]()
        self._states: Counter[tuple[str, str]] = Counter()  # (provider, state)
        self._residual: dict[str, dict[str, Credential]] = {}  # provider -> those that outlive their tasks

    def __len__(self) -> int:
        return len(self._all)

    def check_room(self, task: Task) -> None:
        """Raise LimitExceeded if no further one of this task may be there."""
        if len(self._by_task.get(task.id, ())) >= self.room_per_task:
            raise LimitExceeded(
                f"the task has {self.room_per_task} credentials of providers outside: they go as they expire"
            )
        if len(self._all) >= self.room or self._per_workload[str(task.spiffe_id)] >= self.room_per_workload:
            raise LimitExceeded("too many credentials of providers outside are not over: they go as they expire")

    def add(self, credential: Credential) -> None:
        self._all[credential.id] = credential
        self._by_task.setdefault(credential.task_id, {})[credential.id] = credential
        self._per_workload.add(str(credential.spiffe_id))
        self._states[credential.provider, credential.state] += 1

    def remove(self, credential: Credential) -> None:
        if self._all.pop(credential.id, None) is None:
            return
        of_task = self._by_task[credential.task_id]
        del of_task[credential.id]
        if not of_task:
            del self._by_task[credential.task_id]
        self._per_workload.remove(str(credential.spiffe_id))
        self._states[credential.provider, credential.state] -= 1
        self._residual.get(credential.provider, {}).pop(credential.id, None)

    def move(self, credential: Credential, state: str) -> None:
        """Have it in another state."""
        self._states[credential.provider, credential.state] -= 1
        credential.state = state
        self._states[credential.provider, state] += 1

    def outlives(self, credential: Credential) -> None:
        """Its task has it no more, and it is not gone."""
        self._residual.setdefault(credential.provider, {})[credential.id] = credential

    def of(self, task_id: str) -> tuple[Credential, ...]:
        """Those of a task, the oldest first."""
        return tuple(self._by_task.get(task_id, {}).values())

    def all(self) -> list[Credential]:
        """All, the oldest first."""
        return list(self._all.values())

    def residual(self) -> list[Credential]:
        """Those that outlive their tasks."""
        return [each for some in self._residual.values() for each in some.values()]

    def held(self, provider: str) -> int:
        """How many of a provider live tasks have."""
        return self._states[provider, HELD]

    def outliving(self, provider: str) -> int:
        """How many of a provider outlive their tasks."""
        return len(self._residual.get(provider, ()))

    def counts(self) -> dict[tuple[str, str], int]:
        """How many there are, by (provider, state); 0 of those that there were some of."""
        return dict(self._states)

    def oldest(self) -> dict[str, float]:
        """Since when the first of each provider's has outlived its task, on the boot clock."""
        since = {name: [each.over_boot for each in list(some.values())] for name, some in list(self._residual.items())}
        return {name: min(found) for name, found in since.items() if found}
