"""Time, and alarms on it.

Wall time (`now`) stands in certificates and tokens. Durations run on the boot clock, which goes on while the machine
sleeps and which nobody can set: a step of the wall clock neither extends nor revives a task, a fact or an entry. Task
tokens are judged by both clocks (`tasktoken/times.py`). SVIDs are for readers who have the wall clock alone, and who
take one that has ended again where that is set back.
"""

import asyncio
import ctypes
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

log = structlog.get_logger()

# asyncio's own timers stop while the machine sleeps, and nobody tells of a step of the wall clock: so we look at both
# clocks at least this often.
LONGEST_NAP_SECONDS = 1.0
STEP_SECONDS = 1.0  # of the wall clock against the boot clock; certificates have slack for what is less
RINGING_SECONDS = 0.005  # of alarms that are due together, after which others have a turn
_SWEEP_FROM = 1_000
_TIMEX_BYTES = 512  # of the kernel's struct timex, and more: zeros ask it for nothing but how the clock is
_TIME_ERROR = 5  # adjtimex(2): nothing keeps the clock right


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """Wall time, aware, UTC."""

    def boot(self) -> float:
        """Seconds on the boot clock."""


def milliseconds(at: datetime) -> int:
    """Since the epoch, as audit records have times."""
    return int(at.timestamp() * 1000)


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def boot(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def synchronised() -> bool:
    """Whether the kernel knows of something that keeps its wall clock right."""
    try:
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (AttributeError, OSError):
        return False
    return 0 <= state < _TIME_ERROR


class Alarm:
    """One thing to be done at a time (`due`, on the boot clock); `cancel` forgets it."""

    __slots__ = ("_action", "_arguments", "due")

    def __init__(self, action: Callable[..., object], due: float = 0.0, arguments: tuple[Any, ...] = ()) -> None:
        self._action: Callable[..., object] | None = action
        self._arguments = arguments
        self.due = due

    def cancel(self) -> None:
        self._action, self._arguments = None, ()

    @property
    def cancelled(self) -> bool:
        return self._action is None

    def ring(self) -> None:
        action, arguments = self._action, self._arguments
        self.cancel()
        if action is not None:
            action(*arguments)


class Alarms:
    """Runs actions when the boot clock reaches their time.

    Actions are plain functions that do not block. One that raises is logged, and stops nothing else. `run` must be
    running for anything to ring. It also notices when the wall clock is set, and tells those who asked.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._swept = 0
        self._earlier = asyncio.Event()
        self._offset = self._wall_offset()
        self._on_step: list[Callable[[], None]] = []

    def on_step(self, hook: Callable[[], None]) -> None:
        """Call `hook` when the wall clock was set, ahead or back. Hooks are called in the order they were given."""
        self._on_step.append(hook)

    def _wall_offset(self) -> float:
        return self._clock.now().timestamp() - self._clock.boot()

    def look_at_wall(self) -> None:
        """Notice now whether the wall clock was set: for those who are about to sign something by it."""
        offset = self._wall_offset()
        step = offset - self._offset
        if abs(step) < STEP_SECONDS:
            return
        self._offset = offset
        log.warning("wall_clock_stepped", seconds=round(step, 3))
        for hook in self._on_step:
            try:
                hook()
            except Exception:
                log.exception("step_hook_failed")

    def _sweep(self) -> None:
        """Forget cancelled alarms once they are the most: a task that ends early must not weigh until its deadline."""
        kept = [each for each in self._heap if not each[2].cancelled]
        heapq.heapify(kept)
        self._heap, self._swept = kept, len(kept)

    def at(self, boot: float, action: Callable[..., object], *arguments: Any) -> Alarm:
        """Ring once when the boot clock reads `boot` seconds or more: call `action` with these arguments."""
        alarm = Alarm(action, boot, arguments)
        if len(self._heap) > 2 * self._swept + _SWEEP_FROM:
            self._sweep()
        heapq.heappush(self._heap, (boot, next(self._order), alarm))
        if self._heap[0][2] is alarm:
            self._earlier.set()
        return alarm

    def after(self, seconds: float, action: Callable[..., object], *arguments: Any) -> Alarm:
        """Ring once, `seconds` from now."""
        return self.at(self._clock.boot() + seconds, action, *arguments)

    def ring_due(self) -> float:
        """Ring what is due, and return the seconds until the next one (at most LONGEST_NAP_SECONDS).

        After a long sleep of the machine much is due at once: then 0 is returned before all has rung.
        """
        self.look_at_wall()
        pause = self._clock.boot() + RINGING_SECONDS
        while self._heap:
            due, _, alarm = self._heap[0]
            if alarm.cancelled:
                heapq.heappop(self._heap)
                continue
            left = due - self._clock.boot()
            if left > 0:
                return min(left, LONGEST_NAP_SECONDS)
            heapq.heappop(self._heap)
            try:
                alarm.ring()
            except Exception:
                log.exception("alarm_failed")
            if self._clock.boot() > pause:
                return 0.0
        return LONGEST_NAP_SECONDS

    async def run(self) -> None:
        """Ring alarms until cancelled."""
        while True:
            nap = self.ring_due()
            self._earlier.clear()
            over = asyncio.get_running_loop().call_later(nap, self._earlier.set)
            try:
                await self._earlier.wait()
            finally:
                over.cancel()
