"""Which file is open, and how far the kernel vouches for the times of its last change."""

import ctypes
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sojourn.attestation.machine import machine
from sojourn.errors import AttestationFailed
from sojourn.limits import MACHINE_MOUNTS_FRESH_SECONDS

from sojourn_attestors.kernel.bootclock import boot_seconds
from sojourn_attestors.kernel.mounts import mounts_of

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_STATX_DONT_SYNC: Final = 0x4000
_STATX_MNT_ID: Final = 0x1000  # Linux 5.8; given to another mount later
_STATX_MNT_ID_UNIQUE: Final = 0x4000  # Linux 6.8; never given again until the next start
_STATX: Final = struct.Struct("=I132xIIQ104x")  # struct statx: mask, device (major and minor number), mount id
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


class OwnFileSystems:
    """The file systems of the machine's own mounts that no server and no program has to be asked about.

    Not those that users may have mounted for themselves, in namespaces of their own. What the machine has mounted is
    looked at again after MACHINE_MOUNTS_FRESH_SECONDS.
    """

    def __init__(self, boot: Callable[[], float] = boot_seconds) -> None:
        """`boot`: seconds on the boot clock."""
        self._boot = boot
        self._found: tuple[frozenset[int], frozenset[int]] = frozenset(), frozenset()  # mounts by id, and devices
        self._until = -1.0

    def serve(self, pid: int) -> bool:
        """Whether the program of a process lies on one. Never waits itself. False too where that cannot be told."""
        try:
            buffer = ctypes.create_string_buffer(_STATX.size)
            if not _statx(_AT_FDCWD, f"/proc/{pid}/exe".encode(), _AT_STATX_DONT_SYNC, _STATX_MNT_ID, buffer):
                return False
            _, major, minor, mount = _STATX.unpack(buffer.raw)
            mounts, devices = self._own()
            # A file's device may be another than its mount's, as on btrfs; in another mount namespace the ids are.
            return mount in mounts or os.makedev(major, minor) in devices
        except (OSError, ValueError, AttributeError, AttestationFailed):
            return False

    def _own(self) -> tuple[frozenset[int], frozenset[int]]:
        now = self._boot()
        if now >= self._until:
            own = [each for each in mounts_of("self" if machine().doubt else 1) if each.kind in _OWN_KERNEL]
            self._found = frozenset(each.id for each in own), frozenset(each.device for each in own)
            self._until = now + MACHINE_MOUNTS_FRESH_SECONDS
        return self._found


def _mount(descriptor: int) -> tuple[int, bool]:
    """The id of the mount, and whether it is never given to another one."""
    buffer = ctypes.create_string_buffer(_STATX.size)
    wanted = _STATX_MNT_ID | _STATX_MNT_ID_UNIQUE
    try:
        if not _statx(descriptor, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, wanted, buffer):
            return 0, False
    except AttributeError:  # a C library older than the call
        return 0, False
    mask, _, _, mount = _STATX.unpack(buffer.raw)
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
