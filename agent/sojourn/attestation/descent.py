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


def told_parent(pidfd: int) -> int | None:
    """The parent's pid, or None if the kernel does not tell it by a pidfd, or the process has gone."""
    info = info_of(pidfd)
    return None if info is None else int(info[4])


def look(pid: int, pidfd: int) -> tuple[int, int]:
    """The pid of a process's parent, 0 if there is none that can be seen; and its birth. Raise AttestationFailed if it
    has gone, or as ProcReader.stat.
    """
    if not tells():
        found = reader.stat(pid)
        return found.parent, found.start_time
    parent = told_parent(pidfd)
    if parent is None:
        raise AttestationFailed("the process has gone")
    return parent, birth_of(pid, pidfd)


def parent_and_birth(pid: int) -> tuple[int, int]:
    """The parent's pid, and a number that is greater the later a process began: with the pid it names one process.

    Raise OSError if there is none, HeldUp if that cannot be told for now.
    """
    pidfd = os.pidfd_open(pid)
    try:
        return look(pid, pidfd)
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
        try:
            parent, _ = look(key[0], pidfd)
            while parent and found[-1] != until and len(found) <= ANCESTORS_WALKED:
                above = os.pidfd_open(parent)
                opened.callback(os.close, above)
                its, birth = look(parent, above)
                # A parent that is younger, or is none any more, has the pid of one that has gone.
                if birth > found[-1][1] or (tells() and told_parent(pidfd) != parent):
                    return found, False
                found.append((parent, birth))
                pidfd, parent = above, its
        except HeldUp:
            raise
        except (OSError, AttestationFailed):
            return found, False
    return found, not parent or found[-1] == until
