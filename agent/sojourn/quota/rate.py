"""So many a second for each owner: nobody floods the log, or what others share."""

import time
from collections import Counter
from collections.abc import Callable, Hashable

from sojourn.limits import BURSTS_KEPT


class Rate:
    """So many in each second for each user or other caller, of anything; what is over that is not said, or not done."""

    def __init__(self, per_second: int, now: Callable[[], float] | None = None) -> None:
        """`now`: seconds of a clock that nobody sets; None: time.monotonic."""
        self._per_second = per_second
        self._now = now
        self._second = 0
        self._used: Counter[Hashable] = Counter()

    def allow(self, who: Hashable) -> bool:
        """Count one more of `who`, and return whether that is within its rate in this second."""
        second = int(time.monotonic() if self._now is None else self._now())
        if second != self._second:
            self._second = second
            self._used.clear()
        self._used[who] += 1
        return self._used[who] <= self._per_second


class BurstRate:
    """So many a second in the long run for each owner, and what is left unused saved up to a burst: a token bucket."""

    def __init__(self, per_second: int, burst: int, now: Callable[[], float]) -> None:
        """`now`: seconds of a clock that nobody sets. A rate that is above the burst is the burst."""
        self.per_second = per_second
        self._least_burst = burst
        self._now = now
        self._buckets: dict[Hashable, tuple[float, float]] = {}  # tokens, and when they were counted

    def allow(self, who: Hashable) -> bool:
        """Use up one token of `who`, and return whether there was one."""
        now, burst = self._now(), max(self._least_burst, self.per_second)
        tokens, at = self._buckets.get(who) or self._new(now, burst)
        tokens = min(burst, tokens + (now - at) * self.per_second)
        allowed = tokens >= 1
        self._buckets[who] = (tokens - 1 if allowed else tokens, now)
        return allowed

    def _new(self, now: float, burst: int) -> tuple[float, float]:
        """A bucket that is full, like those that are forgotten for it: they would say nothing else."""
        if len(self._buckets) >= BURSTS_KEPT:
            self._buckets = {
                who: (tokens, at)
                for who, (tokens, at) in self._buckets.items()
                if tokens + (now - at) * self.per_second < burst
            }
        return burst, now
