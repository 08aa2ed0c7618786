"""Telling validators which tasks live: each hears of the tasks at its audiences, as soon as anything changes."""

import asyncio
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from sojourn.limits import FEED_CHANGES_HELD, STREAMS_WOKEN_AT_ONCE
from sojourn.quota.fair_queue import FairQueue
from sojourn.runtime.hooks import Hooks
from sojourn.tasks.task import ACTIVE, SUSPENDED, Task
from sojourn.tasktoken.end_reasons import with_explanation
from sojourn.tasktoken.grants import Authority


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
    who: Hashable = None  # whose it is
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    due: bool = False  # to be woken
    lost: bool = False
    keys_changed: bool = False  # the keys of tokens are others than it was told last
    _waiting: dict[str, TaskState] = field(default_factory=dict)

    def push(self, state: TaskState) -> None:
        if len(self._waiting) >= FEED_CHANGES_HELD and state.id not in self._waiting:
            self._waiting.clear()
            self.lost = True
        if not self.lost:
            self._waiting[state.id] = state

    def take(self) -> list[TaskState]:
        """What changed since the last time; the newest state of each task."""
        self.changed.clear()
        taken, self._waiting = list(self._waiting.values()), {}
        return taken


class Feed:
    """All validators that watch.

    They are woken in turns: one of each caller, then the next of each, and of all no more than STREAMS_WOKEN_AT_ONCE in
    a step of the event loop. However many watches somebody holds, others hear of an end as soon as before.
    """

    def __init__(self) -> None:
        self.on_told: Hooks[[float]] = Hooks()  # all have been woken who hear of an end: so many seconds after it
        self._ended_at: float | None = None  # on the monotonic clock: the first end of which some have yet to hear
        self._watchers: set[Watcher] = set()
        self._due = FairQueue[Hashable, Watcher]()
        self._coming = False

    @contextmanager
    def watch(self, audiences: Sequence[str], who: Hashable = None) -> Iterator[Watcher]:
        watcher = Watcher(frozenset(audiences), who)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def publish(self, task: Task, before: Authority | None = None) -> None:
        """Tell everyone who watches one of the task's resources, or of those `before`, what has become of it."""
        state = state_of(task)
        resources = {*task.authority.resources, *(before.resources if before is not None else ())}
        for watcher in self._watchers:
            if not watcher.audiences.isdisjoint(resources):
                watcher.push(state)
                self._is_due(watcher)
        if not task.live and self._due and self._ended_at is None:
            self._ended_at = monotonic()
        self._wake()

    def keys_changed(self) -> None:
        """Tell everyone of the keys that tokens are signed with."""
        for watcher in self._watchers:
            watcher.keys_changed = True
            self._is_due(watcher)
        self._wake()

    def _is_due(self, watcher: Watcher) -> None:
        if not watcher.due:  # there may be thousands of them at each change
            watcher.due = True
            self._due.put(watcher.who, watcher)

    def _wake(self) -> None:
        """Wake the first of those that are due now, and the others behind the steps that these have then."""
        if not self._coming:
            self._wake_some()

    def _wake_some(self) -> None:
        for _ in range(STREAMS_WOKEN_AT_ONCE):
            watcher = self._due.take()
            if watcher is None:
                break
            watcher.due = False
            watcher.changed.set()
        self._coming = bool(self._due)
        if self._coming:
            asyncio.get_running_loop().call_soon(self._wake_some)
        elif self._ended_at is not None:
            seconds, self._ended_at = monotonic() - self._ended_at, None
            self.on_told.tell(seconds)

    def __len__(self) -> int:
        return len(self._watchers)


def state_of(task: Task) -> TaskState:
    why = with_explanation(task.reason, task.explanation)
    reason = f"{task.state}: {why}" if why else task.state
    return TaskState(task.id, task.version, task.state == ACTIVE, reason, task.state == SUSPENDED)
