"""The mark of a command that is to get nothing of this agent, and of all that descends from it.

The mark is a hard limit of 0 for RLIMIT_LOCKS, which no kernel since Linux 2.4.25 enforces. The kernel hands limits on
to every child, keeps them over exec, and lets nobody raise a hard limit without CAP_SYS_RESOURCE in the first user
namespace. So whoever is marked stays so: orphaned, in another session, user or process namespace, or after the end of
what marked it. `sdk/confinement/start.py` sets it.
"""

import os
import resource
from typing import Final

from sojourn.attestation.process import Process, content_of
from sojourn.errors import AttestationFailed

RLIMIT_LOCKS: Final = 10  # on every architecture; not in Python's module
_LINE: Final = b"\nMax file locks"


def is_confined(process: Process) -> bool:
    """Whether the process has the mark. Raise AttestationFailed if it has gone, or if the kernel does not tell."""
    try:
        hard = _hard_limit(process.pid)
    except (OSError, ValueError, IndexError) as error:
        raise AttestationFailed("the limits of the process cannot be read", detail=str(error)) from error
    process.check_alive()  # so that they are its own
    return hard == 0


def _hard_limit(pid: int) -> int:
    try:
        return resource.prlimit(pid, RLIMIT_LOCKS)[1]
    except PermissionError:  # of another user, and we are not privileged: the same takes longer to read
        pass
    try:
        content = content_of(pid, "limits")
    except FileNotFoundError:
        if os.path.exists("/proc/self/limits"):
            raise
        return resource.RLIM_INFINITY  # this kernel does not tell of anybody's
    line = content[content.index(_LINE) + len(_LINE) :].partition(b"\n")[0]
    hard = line.split()[1]
    return resource.RLIM_INFINITY if hard == b"unlimited" else int(hard)
