"""Which file is behind a path, without waiting for the file system that it lies on.

A stat asks a network or FUSE file system, and waits for as long as that takes: for ever, if its server stands still.
The event loop must not. With `statx` the kernel answers from what it knows already.
"""

import ctypes
import errno
import os
import struct

_AT_FDCWD = -100
_AT_STATX_DONT_SYNC = 0x4000
_STATX_INO = 0x100
_STATX = struct.Struct("=I28xQ96xII112x")  # struct statx: mask, inode, and the device's major and minor number


def _libc_statx() -> "ctypes._NamedFuncPointer | None":
    try:
        return ctypes.CDLL(None, use_errno=True).statx
    except (AttributeError, OSError):  # a C library older than the call
        return None


_statx = _libc_statx()


def identity(path: str) -> tuple[int, int]:
    """Device and inode of the file at `path`. Raise OSError as `os.stat` does; PermissionError also where the file
    system keeps them from us.
    """
    if _statx is None:
        status = os.stat(path)
        return status.st_dev, status.st_ino
    buffer = ctypes.create_string_buffer(_STATX.size)
    # Asking for no field in particular: for none is the file system asked, and device and inode are always known.
    if _statx(_AT_FDCWD, os.fsencode(path), _AT_STATX_DONT_SYNC, 0, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    mask, inode, major, minor = _STATX.unpack(buffer.raw)
    if not mask & _STATX_INO:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return os.makedev(major, minor), inode
