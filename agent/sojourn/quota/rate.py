"""So many a second for each of those who cause something: nobody floods the log, or what others share."""

import time
from collections import Counter
from collections.abc import Callable, Hashable


class Allowance:
    """So many a second for each user or other caller, of anything; what is over that is not said, or not done."""

    def __init__(self, per_second: int, now: Callable[[], float] | None = None) -> None:
        """`now`: seconds of a clock that nobody sets; None: time.monotonic."""
        self._per_second = per_second
        self._now = now
        self._second = 0
        self._used: Counter[Hashable] = Counter()

    def allow(self, who: Hashable) -> bool:
        """Count one more of `who`, and return whether that is within its allowance of this second."""
        second = int(time.monotonic() if self._now is None else self._now())
        if second != self._second:
            self._second = second
            self._used.clear()
        self._used[who] += 1
        return self._used[who] <= self._per_second
