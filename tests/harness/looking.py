"""What only looking can tell, and waiting for it."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], what: str = "it is so", seconds: float = 15.0) -> T:
    """Look until it is true, and return what was seen. Raise AssertionError after `seconds`."""
    ends = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > ends:
            raise AssertionError(f"not within {seconds} s: {what}; last seen: {seen!r}")
        time.sleep(0.02)


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))
