"""What the service manager hears of a running agent: that it is ready, in one line how it is, and signs of life.

The signs come from the event loop: an agent whose loop stands still gives none, and is replaced.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sojourn.agent.build import Rooms
from sojourn.config.reload import ConfigReload
from sojourn.limits import SERVICE_STATUS_SECONDS, START_BYTES_PER_SECOND, START_SECONDS
from sojourn.runtime.service_manager import ServiceManager

READS = (CONFIGURATION, TASK_TYPES) = ("configuration", "task types")


def starting(manager: ServiceManager, data_dir: Path) -> None:
    """Have the service manager wait for a start as long as the database may need, which a new release may migrate."""
    size = 0
    for name in ("sojourn.db", "sojourn.db-wal"):
        with suppress(OSError):
            size += (data_dir / name).stat().st_size
    manager.tell(f"STATUS=starting, with a database of {size / 2**20:.0f} MiB")
    manager.extend_start(START_SECONDS + size / START_BYTES_PER_SECOND)


def line_of(rooms: Rooms, reload: ConfigReload) -> str:
    """How an agent is, in a few words."""
    found = [
        _count(len(rooms.registry), "entry", "entries"),
        _count(len(rooms.engine.tasks), "task", "tasks"),
        rooms.signing.in_short,
    ]
    found += ["configuration refused"] if reload.fault else []
    found += ["restart needed"] if reload.restart_needed else []
    found += ["no task types in force"] if rooms.engine.no_types else []
    return ", ".join(found)


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


class ServiceStatus:
    """Tells the service manager. To be made in the loop that answers callers."""

    def __init__(self, manager: ServiceManager, line: Callable[[], str]) -> None:
        """`line` says in a few words how the agent is."""
        self._manager = manager
        self._line = line
        self._said = ""
        self._reading: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        """Tell that the agent answers, and go on giving signs of life."""
        self._tell_line("READY=1")
        if self._manager.listens:
            self._beat()

    def reloading(self) -> None:
        """Tell that what READS names is read again. It is ready again when `was_read` has been called for each."""
        self._reading = set(READS)
        self._manager.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def was_read(self, what: str) -> None:
        """Note that one of READS was read, whatever came of it."""
        if what in self._reading:
            self._reading.discard(what)
            if not self._reading:
                self._tell_line("READY=1")

    def stopping(self) -> None:
        """Tell that the agent begins nothing more."""
        self._manager.tell("STOPPING=1", "STATUS=draining")

    def close(self) -> None:
        """Give no more signs."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        watchdog = self._manager.watchdog_seconds
        every = min(watchdog / 2, SERVICE_STATUS_SECONDS) if watchdog else SERVICE_STATUS_SECONDS
        self._timer = asyncio.get_running_loop().call_later(every, self._beat)  # first, whatever becomes of the rest
        self._manager.send_waiting()
        if watchdog:
            self._manager.tell("WATCHDOG=1")
        if self._line() != self._said and not self._reading:
            self._tell_line()

    def _tell_line(self, *before: str) -> None:
        self._said = self._line()
        self._manager.tell(*before, f"STATUS={self._said}")
