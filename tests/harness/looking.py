"""What only looking can tell, and waiting for it."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sojourn.attestation.proc_reader import reader

T = TypeVar("T")
PIDFD = ("anon_inode:[pidfd]", "pidfd:")  # by the kernel's age
OF_CALLERS = ("socket:", "/proc/", *PIDFD)  # what an agent opens for those who call it, and for them alone
WAIT_SECONDS = 15.0  # until what is waited for has failed: a busy machine needs less


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


def gone(pid: int) -> bool:
    """Whether it has ended. Where its parent ended before it, it may be a zombie until the end of the tests."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


async def idle() -> None:
    """Return once the running loop has nothing to do: whatever goes on waits for time, a thread or another process."""
    ready, calm = asyncio.get_running_loop()._ready, 0  # type: ignore[attr-defined]
    for _ in range(10_000):
        await asyncio.sleep(0)
        calm = 0 if ready else calm + 1
        if calm == 2:  # what came on sockets meanwhile is ready only one turn later
            return
    raise AssertionError("the loop is never idle")


def next_second() -> None:
    """Return once the clock's whole second is another: what events and tokens tell of time is in whole seconds."""
    time.sleep(1.02 - time.time() % 1)


class OpenFiles:
    """What a process has open now. What it closes later does not count: that may be garbage of others."""

    def __init__(self, pid: int | str = "self") -> None:
        self._folder = Path(f"/proc/{pid}/fd")
        if pid == "self":
            reader.stat(os.getpid())  # so that the process that reads for it, which stays, was there before
        self._before = self._now()

    def opened_since(self, *kinds: str) -> list[str]:
        """What it has opened and not closed, as the kernel names it, such as `socket:[17]`; `kinds`: how names begin.

        Nothing, if the process is another's and this is not root.
        """
        return sorted(name for _, name in self._now() - self._before if name.startswith(kinds or ""))

    def await_closed(self, *kinds: str) -> None:
        """Wait until it has closed what it has opened since, or fail with what that is."""
        self._await(lambda: not self.opened_since(*kinds), *kinds)

    def await_few(self, slack: int) -> None:
        """Wait until it has no more open than it had, but for so many, or fail with what it has opened since."""
        self._await(lambda: len(self._now()) <= len(self._before) + slack)

    def _await(self, closed: Callable[[], bool], *kinds: str) -> None:
        with contextlib.suppress(AssertionError):
            until(closed)
        assert closed(), f"still open: {self.opened_since(*kinds)}"

    def _now(self) -> set[tuple[str, str]]:
        """Each by number and name; nothing if the process has ended."""
        found = set()
        gone = (FileNotFoundError, PermissionError) if os.geteuid() else FileNotFoundError
        with contextlib.suppress(gone):
            for each in os.listdir(self._folder):
                with contextlib.suppress(FileNotFoundError):  # it has been closed in the meantime
                    found.add((each, os.readlink(self._folder / each)))
        return found


def command_lines() -> str:
    """What everybody sees of every process on the machine: its arguments, a process a line."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended in the meantime
            found.append(each.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(found)
