"""What a service knows of the tasks whose tokens it may see: `sojourn.v1.Validation.WatchTasks`."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

from sojourn._pb.sojourn.v1 import validation_pb2
from sojourn.errors import SojournError, Unavailable
from sojourn.jose.jws import PublicKey
from sojourn.limits import ENDED_TASKS_KEPT, HEARTBEAT_SECONDS, HEARTBEATS_MISSED, LIVE_TASKS
from sojourn.quota.lru import Lru
from sojourn.sdk.client.validation import Agent
from sojourn.workloadapi.messages import jwk_set

STALE_SECONDS: Final = HEARTBEAT_SECONDS * HEARTBEATS_MISSED
LOG: Final = logging.getLogger("sojourn.guard")  # a service's own log, in which its operator looks


def boot_seconds() -> float:
    """The boot clock: it goes on while the machine sleeps, and nobody can set it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class TaskKnown:
    """What the feed says of one task. `version` is the least that its tokens must carry."""

    version: int
    live: bool
    reason: str
    suspended: bool = False  # not live for now; may be live again with the same version


class _Tasks:
    """What is known of tasks: at most LIVE_TASKS live ones, and the last ENDED_TASKS_KEPT ended ones."""

    def __init__(self) -> None:
        self._live: dict[str, TaskKnown] = {}
        self._ended: Lru[str, TaskKnown] = Lru(ENDED_TASKS_KEPT, by_age=True)

    def lookup(self, task_id: str) -> TaskKnown | None:
        return self._live.get(task_id) or self._ended.get(task_id)

    def note(self, state: validation_pb2.TaskState) -> bool:
        """Take what is said of a task. False: it is older than what is known."""
        before = self.lookup(state.id)
        ended = before is not None and not before.live and not before.suspended
        # An end is only taken back by a greater version, and a suspension not by a smaller one.
        if before is not None and state.live and not before.live and state.version < before.version + ended:
            return False
        least = max(state.version, before.version if before else 0)
        known = TaskKnown(least, state.live, state.reason, state.suspended)
        self._live.pop(state.id, None)
        self._ended.drop(state.id)
        if not known.live:
            self._ended.put(state.id, known)
        elif len(self._live) < LIVE_TASKS:
            self._live[state.id] = known
        return True


@dataclass(slots=True)
class _Coming:
    """A snapshot of which the last part has not come yet: nothing of it is in force."""

    epoch: int
    issuer: str
    keys: Mapping[str, PublicKey]
    tasks: _Tasks


class TaskFeed:
    """Follows the feed for `audiences`, for use as `async with TaskFeed(client, audiences) as feed`.

    Knows at most LIVE_TASKS live tasks and the last ENDED_TASKS_KEPT ended ones; of any other it says nothing. What
    it knows is replaced by a snapshot once that is whole, and by none that breaks off. An
    agent whose epoch is older than that of before is not believed: its database was put back, or it is another one.
    """

    def __init__(self, client: Agent, audiences: Sequence[str], *, boot: Callable[[], float] = boot_seconds) -> None:
        self._client = client
        self._audiences = tuple(audiences)
        self._boot = boot
        self._heard: float | None = None  # None: no snapshot on this stream yet
        self._steady: float | None = None  # how far the agent's steady clock is ahead of our boot clock
        self._tasks = _Tasks()
        self._coming: _Coming | None = None
        self._ready = asyncio.Event()
        self.error: SojournError | None = None  # why the feed was last lost
        self._loss_told = False
        self._follower: asyncio.Task[None] | None = None
        self._waiting: dict[str, set[asyncio.Event]] = {}  # for news of a task
        self._hooks: list[Callable[[str], None]] = []
        self.issuer = ""
        self.keys: Mapping[str, PublicKey] = {}
        self.epoch = 0

    async def __aenter__(self) -> Self:
        self._follower = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop following. The feed is not fresh from then on."""
        self._heard = None
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)

    def on_news(self, hook: Callable[[str], None]) -> Callable[[], None]:
        """Call `hook` with a task's ID when something is heard of it, with '' when all is heard anew.

        It neither blocks nor raises. What is returned ends that.
        """
        self._hooks.append(hook)
        return partial(self._hooks.remove, hook)

    @property
    def fresh(self) -> bool:
        """Whether it was heard of within STALE_SECONDS. If not, what it knows may be over."""
        return self._heard is not None and self._boot() - self._heard < STALE_SECONDS

    @property
    def steady(self) -> float | None:
        """What the agent's steady clock reads, by which its tokens end; None: it has not said."""
        return None if self._steady is None else self._boot() + self._steady

    async def comes_back(self, timeout_seconds: float) -> bool:
        """Whether it is fresh. One whose stream has just ended is given `timeout_seconds` for its next snapshot."""
        following = self._follower is not None and not self._follower.done()
        if self._heard is None and following:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._ready.wait()
        return self.fresh

    def lookup(self, task_id: str) -> TaskKnown | None:
        """What is known of a task; None: nothing, so ask the agent."""
        return self._tasks.lookup(task_id)

    async def wait_news(self, task_id: str, timeout_seconds: float) -> None:
        """Return when something is heard of a task, when all is heard anew, or after `timeout_seconds`."""
        heard = asyncio.Event()
        self._waiting.setdefault(task_id, set()).add(heard)
        try:
            async with asyncio.timeout(timeout_seconds):
                await heard.wait()
        except TimeoutError:
            return
        finally:
            self._waiting[task_id].discard(heard)
            if not self._waiting[task_id]:
                del self._waiting[task_id]

    async def wait_ready(self, timeout_seconds: float) -> None:
        """Return once there is a snapshot. Raise the last error, or Unavailable, after `timeout_seconds`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._ready.wait()
        except TimeoutError:
            raise (self.error or Unavailable("agent sent no snapshot of its tasks in time")) from None

    async def _follow(self) -> None:
        messages = self._client.connection.follow(
            "/sojourn.v1.Validation/WatchTasks",
            validation_pb2.WatchTasksRequest(audiences=self._audiences),
            validation_pb2.TaskFeed,
            self._take,
            self._lost,
            silence_seconds=2 * STALE_SECONDS,
        )
        try:
            async with contextlib.aclosing(messages):
                async for _ in messages:
                    pass
        except SojournError as error:  # for good: the feed stays stale, and each token is asked about
            self._lost(error)

    def _lost(self, error: SojournError) -> None:
        if not self._loss_told:
            LOG.warning("nothing is heard of live tasks for %s: %s", " ".join(self._audiences), error.public)
            self._loss_told = True
        self.error = error
        self._heard = self._coming = None
        self._ready.clear()

    def _take(self, message: validation_pb2.TaskFeed) -> None:
        if message.HasField("snapshot"):
            coming = self._part(message)
            if message.snapshot.more:  # what was heard before goes stale, if the other parts do not come
                return
            self._begin(coming)
        elif self._coming is not None:
            raise Unavailable("the feed's snapshot broke off")
        elif self._heard is None:
            raise Unavailable("the feed did not begin with a snapshot")
        elif message.epoch not in {0, self.epoch}:
            raise Unavailable("the agent has begun a new epoch")
        else:
            if message.keys:
                self.keys = jwk_set(message.keys)
            for state in message.delta.tasks:
                self._note(state)
        if self._loss_told:
            LOG.info("live tasks are heard of again for %s", " ".join(self._audiences))
            self._loss_told = False
        self._heard = self._boot()
        if message.steady_seconds:  # one that lay unread for a while, as while this process was stopped, says less
            ahead = message.steady_seconds - self._heard
            self._steady = ahead if self._steady is None else max(self._steady, ahead)
        self._ready.set()

    def _part(self, message: validation_pb2.TaskFeed) -> _Coming:
        """Take the first part of a snapshot, or one that follows it."""
        if (coming := self._coming) is None:
            if message.epoch < self.epoch:
                raise Unavailable(f"the agent's epoch has gone back from {self.epoch} to {message.epoch}")
            coming = self._coming = _Coming(message.epoch, message.issuer, jwk_set(message.keys), _Tasks())
        elif message.epoch != coming.epoch:
            raise Unavailable("the agent has begun a new epoch within a snapshot")
        for state in message.snapshot.tasks:
            coming.tasks.note(state)
        return coming

    def _begin(self, whole: _Coming) -> None:
        self._coming = None
        if self._heard is None or whole.epoch != self.epoch:  # a new stream: the agent's machine may have been paused
            self._steady = None
        self._tasks, self.keys, self.issuer, self.epoch = whole.tasks, whole.keys, whole.issuer, whole.epoch
        for each in [each for waiting in self._waiting.values() for each in waiting]:
            each.set()
        for hook in self._hooks:
            hook("")

    def _note(self, state: validation_pb2.TaskState) -> None:
        if not self._tasks.note(state):
            return
        for each in self._waiting.get(state.id, ()):
            each.set()
        for hook in self._hooks:
            hook(state.id)
