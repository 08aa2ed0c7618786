"""Which file is open, and how far the kernel vouches for the times of its last change."""

import ctypes
import os
import stat
import struct
from dataclasses import dataclass
from typing import Final

from sojourn.errors import AttestationFailed

from sojourn_attestors.kernel.mounts import mounts_of

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_STATX_DONT_SYNC: Final = 0x4000
_STATX_MNT_ID: Final = 0x1000  # Linux 5.8; given to another mount later
_STATX_MNT_ID_UNIQUE: Final = 0x4000  # Linux 6.8; never given again until the next start
_STATX: Final = struct.Struct("=I140xQ104x")  # struct statx: mask, mount id
_STATFS: Final = struct.Struct("@l")  # struct statfs: the file system's magic number

# Each write changes ctime, also one through a mapping: the first write to a page after it was mapped is a change.
_TIMED: Final = frozenset(
    {
        0x0000EF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0xF2F52010,  # f2fs
        0x73717368,  # squashfs
        0xE0F5E1E2,  # erofs
        0x00009660,  # iso9660
    }
)
# Served by this kernel, but a write through a mapping may leave the times alone or change them late.
_LOCAL: Final = frozenset(
    {
        0x794C7630,  # overlay, on whatever lies below it
        0x2FC12FC1,  # zfs
        0xCA451A4E,  # bcachefs
    }
)
_OWN_KERNEL: Final = frozenset(
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "squashfs", "erofs", "iso9660", "overlay", "zfs", "bcachefs"]
) | {"tmpfs", "ramfs", "rootfs", "vfat", "exfat", "ntfs3"}


@dataclass(frozen=True, slots=True)
class FileStatus:
    """An open file at one moment. `mount`: the mount that it was opened through, 0 if the kernel does not tell.

    `timed`: whether whoever changes the content changes `key` too. If not, the same key may stand for two contents.
    """

    mode: int
    size: int
    ctime_ns: int
    timed: bool
    key: tuple[int, ...]  # device, inode, size, times of change, mount

    @classmethod
    def of(cls, descriptor: int) -> "FileStatus":
        """The status of an open descriptor, also one of O_PATH. May wait for the file system."""
        found = os.fstat(descriptor)
        mount, unique = _mount(descriptor)
        kind = _kind(descriptor)
        others_write = found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        timed = kind in _TIMED or (kind in _LOCAL and unique and not others_write)
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, mount)
        return cls(found.st_mode, found.st_size, found.st_ctime_ns, timed, key)

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.key[0], self.key[1]


def served_by_this_kernel(pid: int) -> bool:
    """Whether the program of a process lies on a file system that no server and no program has to be asked about.

    Never waits itself. False too where that cannot be told, and for mounts that a user may have made for themself.
    """
    try:
        buffer = ctypes.create_string_buffer(_STATX.size)
        if not _statx(_AT_FDCWD, f"/proc/{pid}/exe".encode(), _AT_STATX_DONT_SYNC, _STATX_MNT_ID, buffer):
            return False
        mount = _STATX.unpack(buffer.raw)[1]
        if os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user"):
            return False
        return any(each.id == mount and each.kind in _OWN_KERNEL for each in mounts_of(pid))
    except (OSError, ValueError, AttributeError, AttestationFailed):
        return False


def _mount(descriptor: int) -> tuple[int, bool]:
    """The id of the mount, and whether it is never given to another one."""
    buffer = ctypes.create_string_buffer(_STATX.size)
    wanted = _STATX_MNT_ID | _STATX_MNT_ID_UNIQUE
    try:
        if not _statx(descriptor, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, wanted, buffer):
            return 0, False
    except AttributeError:  # a C library older than the call
        return 0, False
    mask, mount = _STATX.unpack(buffer.raw)
    return mount, bool(mask & _STATX_MNT_ID_UNIQUE)


def _kind(descriptor: int) -> int:
    """The magic number of the file system, 0 if it does not tell: some that are programs do not."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(descriptor, buffer) != 0:
        return 0
    return int(_STATFS.unpack_from(buffer.raw)[0])


def _statx(folder: int, path: bytes, flags: int, mask: int, buffer: "ctypes.Array[ctypes.c_char]") -> bool:
    return bool(_libc.statx(folder, path, flags, mask, buffer) == 0)


_libc: Final = ctypes.CDLL(None, use_errno=True)
