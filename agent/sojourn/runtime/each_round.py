"""What is found once for all that is done in one round of the event loop."""

import asyncio
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")


class EachRound(Generic[T]):
    """A value that each round of the loop has anew."""

    __slots__ = ("_make", "_value")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._value: T | None = None

    def get(self) -> T:
        """The value of this round. Raise RuntimeError if no loop runs."""
        if self._value is None:
            loop = asyncio.get_running_loop()
            self._value = self._make()
            loop.call_soon(self._over)
        return self._value

    def _over(self) -> None:
        self._value = None


class Found(Generic[K, V]):
    """What was found, by what it was looked for, each for a number of seconds: a round of the loop may be long."""

    __slots__ = ("_clock", "_found", "_seconds")

    def __init__(self, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        """`clock`: a monotonic one, in seconds."""
        self._seconds = seconds
        self._clock = clock
        self._found: dict[K, tuple[V, float]] = {}

    def of(self, key: K, look: Callable[[], V]) -> V:
        """What was found for `key`, or what `look` finds now. What `look` raises is not kept."""
        now = self._clock()
        known = self._found.get(key)
        if known is not None and now - known[1] <= self._seconds:
            return known[0]
        value = look()
        self._found[key] = value, now
        return value

    def known(self, key: K) -> V | None:
        """What was found for `key`; None: nothing was, or too long ago."""
        known = self._found.get(key)
        return known[0] if known is not None and self._clock() - known[1] <= self._seconds else None
