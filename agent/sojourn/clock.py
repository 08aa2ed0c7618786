"""Time, and alarms on it.

Wall time (`now`) stands in certificates and tokens. Durations run on the boot clock, which goes on while the machine
sleeps and which nobody can set: a step of the wall clock neither extends nor revives anything.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import structlog

log = structlog.get_logger()

# asyncio's own timers stop while the machine sleeps, so we look at the boot clock at least this often.
LONGEST_NAP_SECONDS = 5.0
_SWEEP_FROM = 1_000


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """Wall time, aware, UTC."""

    def boot(self) -> float:
        """Seconds on the boot clock."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def boot(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class Alarm:
    """One thing to be done at a time; `cancel` forgets it."""

    __slots__ = ("_action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self._action = None

    @property
    def cancelled(self) -> bool:
        return self._action is None

    def ring(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


class Alarms:
    """Runs actions when the boot clock reaches their time.

    Actions are plain functions that do not block. One that raises is logged, and stops nothing else. `run` must be
    running for anything to ring.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._swept = 0
        self._earlier = asyncio.Event()

    def _sweep(self) -> None:
        """Forget cancelled alarms once they are the most: a task that ends early must not weigh until its deadline."""
        kept = [each for each in self._heap if not each[2].cancelled]
        heapq.heapify(kept)
        self._heap, self._swept = kept, len(kept)

    def at(self, boot: float, action: Callable[[], None]) -> Alarm:
        """Ring once when the boot clock reads `boot` seconds or more."""
        alarm = Alarm(action)
        if len(self._heap) > 2 * self._swept + _SWEEP_FROM:
            self._sweep()
        heapq.heappush(self._heap, (boot, next(self._order), alarm))
        if self._heap[0][2] is alarm:
            self._earlier.set()
        return alarm

    def after(self, seconds: float, action: Callable[[], None]) -> Alarm:
        """Ring once, `seconds` from now."""
        return self.at(self._clock.boot() + seconds, action)

    def ring_due(self) -> float:
        """Ring all that is due and return the seconds until the next one (at most LONGEST_NAP_SECONDS)."""
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
        return LONGEST_NAP_SECONDS

    async def run(self) -> None:
        """Ring alarms until cancelled."""
        while True:
            nap = self.ring_due()
            self._earlier.clear()
            try:
                async with asyncio.timeout(nap):
                    await self._earlier.wait()
            except TimeoutError:
                continue
