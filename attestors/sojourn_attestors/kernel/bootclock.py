"""The clock that nobody sets, and that goes on while the machine sleeps."""

import time


def boot_seconds() -> float:
    """Seconds since the machine was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
