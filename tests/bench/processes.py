"""What other processes use: read of the kernel, without their help."""

import os
from contextlib import suppress
from time import clock_gettime

# The kernel's clock of all threads of another process, of those that have ended too: CPUCLOCK_SCHED of
# include/linux/posix-timers.h, as clock_getcpuclockid(3) makes it. It counts nanoseconds, /proc hundredths of a second.
_SCHEDULED = 2


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of all that descend from it."""
    return sum(map(_cpu_seconds_alone, _tree(pid)))


def _cpu_seconds_alone(pid: int) -> float:
    try:
        return clock_gettime((~pid << 3) | _SCHEDULED)
    except OSError:
        raise RuntimeError(f"process {pid} has ended") from None


def resident_mib(pid: int) -> float:
    """What a process and all that descend from it have in memory. What they share counts for each of them."""
    return sum(map(_resident_mib_alone, _tree(pid)))


def _resident_mib_alone(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no memory: it has ended")


def _tree(pid: int) -> list[int]:
    """The process, and all that descend from it."""
    found = [pid]
    for each in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in os.listdir(f"/proc/{each}/task"):
                with open(f"/proc/{each}/task/{thread}/children", encoding="ascii") as file:
                    found += map(int, file.read().split())
    return found
