"""Standstills of the agent's loop, in which nobody is answered: found, broken off if they are a wait in the kernel, and
told in log, status and metrics, with whose call it was.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import Histogram

from sojourn.endpoints.listener.current_call import Asker, at_of, peer_of
from sojourn.limits import (
    BEAT_SECONDS,
    STANDSTILL_SECONDS,
    STANDSTILLS_LOGGED_PER_SECOND,
    WARY_BEAT_SECONDS,
    WARY_BREAK_SECONDS,
    WARY_SECONDS,
)
from sojourn.quota.rate import Rate
from sojourn.runtime.clock import Clock
from sojourn.runtime.wait_breaker import WaitBreaker

log = structlog.get_logger()
_LASTED: Final = Histogram(
    "sojourn_loop_standstill_seconds",
    "Standstills of the loop, in which nobody was answered, by what it did: waiting, computing, no_processor.",
    ["cause"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_LAG: Final = Histogram(
    "sojourn_loop_lag_seconds",
    "How much later than it was due the loop came to something: so long calls wait before anything is done for them.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
_LOOK_SECONDS: Final = STANDSTILL_SECONDS / 2  # after a beat: it may be over as soon as it is broken off
_IN_THE_LOOP: Final = "the loop itself: it accepts, reads, writes or closes a connection"
_UNSEEN: Final = "not seen: the process was stopped, or one call to the kernel held all of it up"


@dataclass(frozen=True, slots=True)
class Standstill:
    """How long the loop stood still, how much of that its thread computed, at what it was, and whose call that was."""

    at: datetime  # when it was over
    seconds: float
    computing_seconds: float
    doing: str
    asker: Asker


class Standstills:
    """Those since the agent started: how many, the longest, and the last.

    Not those in which the machine had no processor for it: these are the metrics', and a line at the level of info.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged = Rate(STANDSTILLS_LOGGED_PER_SECOND)
        self.count = 0
        self.longest_seconds = 0.0
        self.last: Standstill | None = None

    def note_busy(self, seconds: float, queued_seconds: float) -> None:
        """For most of that time it waited for a processor."""
        _LASTED.labels("no_processor").observe(seconds)
        if self._logged.allow("busy"):
            log.info("loop_had_no_processor", seconds=round(seconds, 3), queued_seconds=round(queued_seconds, 3))

    def note(self, seconds: float, computing_seconds: float, doing: str, asker: Mapping[str, int | str]) -> None:
        self.count += 1
        self.longest_seconds = max(self.longest_seconds, seconds)
        self.last = Standstill(self._clock.now(), seconds, computing_seconds, doing, asker)
        _LASTED.labels("computing" if computing_seconds > seconds / 2 else "waiting").observe(seconds)
        if self._logged.allow(""):
            log.warning(
                "loop_stood_still",
                seconds=round(seconds, 3),
                computing_seconds=round(computing_seconds, 3),
                reason=doing,
                count=self.count,
                **asker,
            )


class _Queue:
    """How long a thread of ours has waited for a processor, in all, by its number in the kernel."""

    def __init__(self, thread: int) -> None:
        try:
            self._file = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel that does not count it
            self._file = -1

    def seconds(self) -> float:
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9 if self._file >= 0 else 0.0

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _queues(*but: int) -> dict[int, float]:
    """How long each thread of ours has waited for a processor so far, by its number; `but`: those that are left out."""
    found = {}
    for name in os.listdir("/proc/self/task"):
        if int(name) not in but:
            queue = _Queue(int(name))
            with suppress(OSError):  # it has ended
                found[int(name)] = queue.seconds()
            queue.close()
    return found


class Watchdog:
    """Watches the running loop from its own thread and from the kernel, until it is closed."""

    def __init__(self, found: Standstills, breaker: WaitBreaker | None = None) -> None:
        """`breaker` breaks off what the loop waits for in the kernel; None: nobody does."""
        self._found = found
        self._breaker = breaker
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._number = threading.get_native_id()
        self._queue = _Queue(self._number)
        self._wary_until = 0.0
        self._beats = 0
        self._last = self._computed = self._queued = self._due_after = 0.0
        self._look: tuple[int, str, Asker] = (0, "", {})  # what was seen last, and after which beat
        self._late: tuple[int, Mapping[int, float]] = (0, {})  # `_queues` when that beat's next one was late
        self._closed = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._next(time.monotonic())
        self._watcher = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        self._closed.set()
        if self._timer is not None:
            self._timer.cancel()
        self._queue.close()
        if self._breaker is not None:
            self._breaker.stop()

    def _beat(self) -> None:
        now = time.monotonic()
        passed = now - self._last
        try:
            _LAG.observe(max(0.0, passed - self._due_after))
            if passed >= STANDSTILL_SECONDS:
                self._stood(now, passed)
        finally:  # whatever becomes of the log: without a beat signals would come without end
            self._next(now)

    def _next(self, now: float) -> None:
        wary = now < self._wary_until
        seconds = WARY_BEAT_SECONDS if wary else BEAT_SECONDS
        self._due_after = seconds
        self._timer = self._loop.call_later(seconds, self._beat)  # first: without a beat signals would come without end
        if self._breaker is not None:
            self._breaker.set(WARY_BREAK_SECONDS if wary else STANDSTILL_SECONDS)
        self._beats += 1
        self._last = now
        self._computed, self._queued = time.thread_time(), self._queue.seconds()

    def _stood(self, now: float, seconds: float) -> None:
        computing = min(time.thread_time() - self._computed, seconds)
        queued = self._queue.seconds() - self._queued
        others = self._others_queued()
        if seconds - queued - others < STANDSTILL_SECONDS:  # with a processor at hand it would have been none
            self._found.note_busy(seconds, max(queued, others))
            return
        beat, doing, asker = self._look
        if beat != self._beats:
            doing, asker = _UNSEEN, {}
        if computing + queued < seconds / 2:
            self._wary_until = now + WARY_SECONDS
        self._found.note(seconds, computing, doing, asker)

    def _others_queued(self) -> float:
        """How long, since the loop was late, another thread of ours has waited for a processor at the most: the loop
        waits for whichever has the interpreter. This watchdog's own has it for no longer than a look.
        """
        beat, before = self._late
        if beat != self._beats:
            return 0.0
        after = _queues(self._number)
        return max((after[each] - seconds for each, seconds in before.items() if each in after), default=0.0)

    # --- in the thread ----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        woken = time.monotonic()
        while not self._closed.wait(_LOOK_SECONDS / 2):
            now, earlier = time.monotonic(), woken
            woken = now
            beat = self._beats
            if now - self._last < _LOOK_SECONDS or self._look[0] == beat:
                continue
            self._late = (beat, _queues(self._number, threading.get_native_id()))
            if now - earlier >= 2 * _LOOK_SECONDS:  # we were held up as well, and what is seen now may be another's
                self._look = (beat, _UNSEEN, {})
                continue
            try:
                self._look = (beat, *self._seen())
            except Exception:
                log.exception("standstill_not_looked_at")
                self._look = (beat, _UNSEEN, {})

    def _seen(self) -> tuple[str, Asker]:
        doing, asker = at_of(sys._current_frames().get(self._thread))
        return (doing, asker) if doing else (_IN_THE_LOOP, peer_of(self._number))
