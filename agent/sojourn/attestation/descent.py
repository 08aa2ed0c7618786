"""Which process it is, and what it descends from: by pidfds, or by /proc where an older kernel does not tell."""

import fcntl
import os
import struct
from contextlib import ExitStack
from functools import cache
from typing import Final

from sojourn.attestation.proc_reader import HeldUp, reader
from sojourn.errors import AttestationFailed
from sojourn.limits import ANCESTORS_WALKED

ProcessKey = tuple[int, int]  # a pid, and what tells its process from all others that have had it, or will
_PIDFD_GET_INFO: Final = 0xC040FF0B  # _IOWR(0xFF, 11, 64 bytes): struct pidfd_info, first version
_PIDFD_INFO: Final = struct.Struct("=QQ11Ii")  # mask, cgroup id, pid tgid ppid and eight ids, exit code


def info_of(pidfd: int, mask: int = 0) -> tuple[int, ...] | None:
    """What the kernel says of the process, and of `mask`; None: nothing, as before Linux 6.13, or it has gone."""
    buffer = bytearray(_PIDFD_INFO.pack(mask, *([0] * 13)))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer)
    except (OSError, ValueError):  # it may be closed
        return None
    return _PIDFD_INFO.unpack(buffer)


@cache
def tells() -> bool:
    """Whether the kernel tells by a pidfd all that is asked here. Since 6.9 its inode is the process's own."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        return info_of(pidfd) is not None
    finally:
        os.close(pidfd)


def birth_of(pid: int, pidfd: int) -> int:
    """The second part of its key. The later a process began, the greater it is. Raise as ProcReader.stat."""
    return os.fstat(pidfd).st_ino if tells() else reader.stat(pid).start_time


def parent_of(pid: int, pidfd: int) -> int:
    """The parent's pid; 0: there is none that can be seen. Raise AttestationFailed if the process has gone, or as
    ProcReader.stat.
    """
    if not tells():
        return reader.stat(pid).parent
    info = info_of(pidfd)
    if info is None:
        raise AttestationFailed("the process has gone")
    return int(info[4])


def parent_and_birth(pid: int) -> tuple[int, int]:
    """The parent's pid, and a number that is greater the later a process began: with the pid it names one process.

    Raise OSError if there is none, HeldUp if that cannot be told for now.
    """
    pidfd = os.pidfd_open(pid)
    try:
        return parent_of(pid, pidfd), birth_of(pid, pidfd)
    except HeldUp:
        raise
    except AttestationFailed as error:
        raise ProcessLookupError(str(error)) from error
    finally:
        os.close(pidfd)


def line_of(key: ProcessKey, pidfd: int, until: ProcessKey | None = None) -> tuple[list[ProcessKey], bool]:
    """A process and what it descends from, its parent first, and whether that is all: up to what has no parent, or to
    `until`. One may have gone meanwhile, and no more than ANCESTORS_WALKED are told. Raise HeldUp.
    """
    found = [key]
    with ExitStack() as opened:
        while len(found) <= ANCESTORS_WALKED and found[-1] != until:
            pid, birth = found[-1]
            try:
                parent = parent_of(pid, pidfd)
                if parent == 0:
                    return found, True
                above = os.pidfd_open(parent)
                opened.callback(os.close, above)
                its = birth_of(parent, above)
                # A parent that is younger, or is none any more, has the pid of one that has gone.
                if its > birth or (tells() and parent_of(pid, pidfd) != parent):
                    return found, False
            except HeldUp:
                raise
            except (OSError, AttestationFailed):
                return found, False
            found.append((parent, its))
            pidfd = above
    return found, found[-1] == until
