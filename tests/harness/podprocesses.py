"""Processes of pods, as the machine that they run on sees them."""

import contextlib
import os
from pathlib import Path


def namespace(pid: int, kind: str) -> str:
    """What names a namespace of a process; empty: it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def members(part: str) -> list[int]:
    """The processes in cgroups whose path has `part`, in whichever hierarchy, by pid."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/cgroup") as file:
            if any(part in f"{line.rstrip()}/" for line in file):
                found.append(int(entry))
    return sorted(found)


def command_of(pid: int) -> str:
    """Its arguments, each with a NUL behind; empty: it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
