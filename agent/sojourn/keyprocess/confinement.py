"""What the key process may do: end with the agent, be read by nobody, and have no network unless it is told to.

It may read and write the files that its user may: a vendor's library keeps keys, sessions and locks wherever it likes.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from contextlib import suppress
from typing import Final

from sojourn.limits import KEY_PROCESS_FILE_BYTES, KEY_PROCESS_MEMORY_BYTES

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_CAPABILITY_VERSION: Final = 0x20080522
_FILES_MAX: Final = 256
_AF_UNIX: Final = 1
# The kernel's numbers of socket() and of the architecture in a filter (linux/audit.h); both are little-endian.
_ARCHITECTURES: Final = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}
_IO_URING_SETUP: Final = 425  # of either: what is asked for in a ring, sockets too, goes by no filter
_X32: Final = 0x40000000  # another set of numbers, in the same architecture's name
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # instructions of BPF
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_EACCES: Final = 13


def end_with(agent: int) -> None:
    """End when the process ends that has started this one, of which this is the pid. Raise OSError."""
    _prctl(ctypes.CDLL(None, use_errno=True), _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != agent:  # it ended before that was said
        sys.exit(1)


def confine(*, network: bool) -> None:
    """Take from this process what it does not need. Raise OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, _PR_SET_DUMPABLE, 0)  # no core, and no process of this user reads its memory
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _FILES_MAX),
        (resource.RLIMIT_FSIZE, KEY_PROCESS_FILE_BYTES),
        (resource.RLIMIT_DATA, KEY_PROCESS_MEMORY_BYTES),
    ):
        _, hard = resource.getrlimit(kind)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
    with suppress(PermissionError):  # the agent's unit forbids the call, and leaves nothing that matters
        _drop_capabilities(libc)
    if not network:
        with suppress(KeyError):
            _without_network(libc, *_ARCHITECTURES[platform.machine()])


def _prctl(libc: ctypes.CDLL, option: int, value: int, more: object = 0) -> None:
    if libc.prctl(option, value, more, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    if libc.capset(header, bytes(24)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _without_network(libc: ctypes.CDLL, number: int, architecture: int) -> None:
    """Have the kernel refuse every socket but Unix ones, and rings of calls (EACCES), and kill what calls it by other
    numbers.
    """
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 5, 0, _X32),
        (_EQUAL, 5, 0, _IO_URING_SETUP),
        (_EQUAL, 0, 2, number),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_EQUAL, 0, 2, _AF_UNIX),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL),
        (_RETURN, 0, 0, _ERRNO | _EACCES),
    ]
    content = b"".join(struct.pack("=HBBI", *each) for each in program)
    kept = ctypes.create_string_buffer(content, len(content))
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(kept)))
    _prctl(libc, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.cast(filter_, ctypes.c_void_p))
