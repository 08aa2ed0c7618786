"""Telling validators which tasks live: each hears of the tasks at its audiences, as soon as anything changes."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sojourn.limits import FEED_CHANGES_HELD
from sojourn.tasks.grants import Authority
from sojourn.tasks.task import ACTIVE, PENDING, SUSPENDED, Task


@dataclass(frozen=True, slots=True)
class TaskState:
    """What a validator knows of a task: a token of it must carry `version` or a later one, and it must live."""

    id: str
    version: int
    live: bool
    reason: str
    suspended: bool


@dataclass(slots=True, eq=False)
class Watcher:
    """One validator. What it has not read yet waits here; when that is too much it starts anew from a snapshot."""

    audiences: frozenset[str]
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False
    keys_changed: bool = False  # the keys of tokens are others than it was told last
    _waiting: dict[str, TaskState] = field(default_factory=dict)

    def push(self, state: TaskState) -> None:
        if len(self._waiting) >= FEED_CHANGES_HELD and state.id not in self._waiting:
            self._waiting.clear()
            self.lost = True
        if not self.lost:
            self._waiting[state.id] = state
        self.changed.set()

    def take(self) -> list[TaskState]:
        """What changed since the last time; the newest state of each task."""
        self.changed.clear()
        taken, self._waiting = list(self._waiting.values()), {}
        return taken


class Feed:
    """All validators that watch."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()
        self._hooks: list[Callable[[Task], None]] = []

    def on_publish(self, hook: Callable[[Task], None]) -> None:
        """Call `hook` with each task of which something is told. Hooks neither block nor raise."""
        self._hooks.append(hook)

    @contextmanager
    def watch(self, audiences: Sequence[str]) -> Iterator[Watcher]:
        watcher = Watcher(frozenset(audiences))
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def publish(self, task: Task, before: Authority | None = None) -> None:
        """Tell everyone who watches one of the task's resources, or of those `before`, what has become of it.

        Of a pending task nobody hears: it has no token, and whoever heard that it does not live would believe it over.
        """
        if task.state == PENDING:
            return
        for hook in self._hooks:
            hook(task)
        state = state_of(task)
        resources = {*task.authority.resources, *(before.resources if before is not None else ())}
        for watcher in self._watchers:
            if not watcher.audiences.isdisjoint(resources):
                watcher.push(state)

    def keys_changed(self) -> None:
        """Tell everyone of the keys that tokens are signed with."""
        for watcher in self._watchers:
            watcher.keys_changed = True
            watcher.changed.set()

    def __len__(self) -> int:
        return len(self._watchers)


def state_of(task: Task) -> TaskState:
    reason = f"{task.state}: {task.reason}" if task.reason else task.state
    return TaskState(task.id, task.version, task.state == ACTIVE, reason, task.state == SUSPENDED)
