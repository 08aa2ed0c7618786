"""What only looking can tell, and waiting for it."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
WAIT_SECONDS = (
    15.0  # until what is waited for has failed: a busy machine needs less, and what hangs is said soon enough
)


def until(look: Callable[[], T], what: str = "it is so", seconds: float = WAIT_SECONDS) -> T:
    """Look until it is true, and return what was seen. Raise AssertionError after `seconds`."""
    ends = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > ends:
            raise AssertionError(f"not within {seconds} s: {what}; last seen: {seen!r}")
        time.sleep(0.02)


def next_second() -> None:
    """Return once the clock's whole second is another: what events and tokens tell of time is in whole seconds."""
    time.sleep(1.02 - time.time() % 1)


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def command_lines() -> str:
    """What everybody sees of every process on the machine: its arguments, a process a line."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended in the meantime
            found.append(each.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(found)
