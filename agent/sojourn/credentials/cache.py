"""The credentials that tasks have and may be handed out again: each to its own task alone, and gone with it."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from sojourn.credentials.credential import Credential
from sojourn.limits import (
    CREDENTIAL_LEFT_SECONDS,
    CREDENTIAL_REFRESHED_SHARE,
    PROVIDER_CREDENTIALS,
    PROVIDER_CREDENTIALS_PER_TASK,
)
from sojourn.providers.provider import Obtained
from sojourn.tasktoken.grants import Grant


@dataclass(frozen=True, slots=True)
class Key:
    """For what a credential was obtained. That of another version of the task, or of its type, is another one."""

    task_id: str
    grant: Grant
    version: int
    digest: str


@dataclass(slots=True, eq=False)
class CachedCredential:
    """A credential that may be handed out. `began` and `ends` are on the boot clock."""

    credential: Credential
    obtained: Obtained = field(repr=False)
    provider: str
    began: float
    ends: float
    unnoted: int = 0  # hand-outs that no record tells of yet
    noted_at: float = 0.0

    def stale(self, boot: float) -> bool:
        """Whether another one should be on its way."""
        return boot >= self.began + (self.ends - self.began) * CREDENTIAL_REFRESHED_SHARE

    def ending(self, boot: float) -> bool:
        """Whether so little is left that whoever asks would better have the next one."""
        return self.ends - boot <= min(CREDENTIAL_LEFT_SECONDS, (self.ends - self.began) / 10)


class KeptCredentials:
    """All that is kept, PROVIDER_CREDENTIALS at most and PROVIDER_CREDENTIALS_PER_TASK of a task, the oldest go first.

    `gone` is called with the task's ID and with each that is not kept any more.
    """

    def __init__(self, gone: Callable[[str, CachedCredential], None]) -> None:
        self._kept: OrderedDict[Key, CachedCredential] = OrderedDict()
        self._of_task: dict[str, OrderedDict[Key, None]] = {}
        self._gone = gone

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Key, boot: float, now: datetime) -> CachedCredential | None:
        """One that has not ended by either clock: setting one of them prolongs nothing."""
        kept = self._kept.get(key)
        if kept is not None and (kept.ends <= boot or kept.obtained.expires_at <= now):
            self._drop(key)
            return None
        return kept

    def put(self, key: Key, kept: CachedCredential) -> None:
        if key in self._kept:
            self._drop(key)
        self._kept[key] = kept
        of_task = self._of_task.setdefault(key.task_id, OrderedDict())
        of_task[key] = None
        if len(of_task) > PROVIDER_CREDENTIALS_PER_TASK:
            self._drop(next(iter(of_task)))
        if len(self._kept) > PROVIDER_CREDENTIALS:
            self._drop(next(iter(self._kept)))

    def forget(self, task_id: str, version: int | None = None) -> None:
        """Drop all of a task, but those of this version of it."""
        for key in list(self._of_task.get(task_id, ())):
            if key.version != version:
                self._drop(key)

    def __iter__(self) -> Iterator[CachedCredential]:
        return iter(list(self._kept.values()))

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key)
        of_task = self._of_task[key.task_id]
        del of_task[key]
        if not of_task:
            del self._of_task[key.task_id]
        self._gone(key.task_id, kept)
