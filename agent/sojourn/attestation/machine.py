"""The machine that an agent serves, by the machine's first process: in its mount namespace a path is the machine's.

An agent that a unit of systemd shuts in, or that runs in a container, has a mount namespace of its own, in which none
of its callers is. So paths are compared and looked up in that of process 1, if that is the first process of the machine
and root's: not that of a container whose process namespace the agent was put into. Else the agent's own namespace
counts, and `Machine.doubt` says why.
"""

import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import PurePath
from typing import Final

from sojourn.attestation.descent import birth_of, line_of
from sojourn.errors import AttestationFailed
from sojourn.limits import MOUNT_TABLE_MAX_BYTES

Namespace = tuple[int, int]
_FIRST: Final = 1
_FIRST_ROOT: Final = "/proc/1/root"
_PROCESS_NAMESPACE_OF_THE_KERNEL: Final = "pid:[4026531836]"  # a number that the kernel fixes
_NO_LOOK: Final = "the agent may not look at the machine's first process: that takes CAP_SYS_PTRACE, as root has"


@dataclass(frozen=True, slots=True)
class _Mount:
    """`number`: of which no two namespaces share one. `device`, and the folder `root` in it, are at `point`."""

    number: bytes
    device: bytes
    root: bytes
    point: bytes
    kind: bytes


class Machine:
    """What cannot change while the agent lives is looked at once. Raises OSError where /proc does not answer."""

    @cached_property
    def doubt(self) -> str:
        """Why the agent's own mount namespace counts instead of the first process's, or ''."""
        try:
            return self.others_processes or _doubt()
        except PermissionError:
            return _NO_LOOK
        except (OSError, AttestationFailed) as error:
            return f"the machine's first process cannot be looked at: {error}"

    @cached_property
    def others_processes(self) -> str:
        """Why process 1 is not the machine's first as the agent sees it, or ''. It takes no privilege to tell."""
        if os.readlink("/proc/self") != str(os.getpid()):
            return "what is at /proc is of another process namespace than the agent"
        if self.sees_all_processes:
            return ""
        return "" if _descends_from_the_first() else "process 1 is that of a container which the agent was put into"

    @cached_property
    def sees_all_processes(self) -> bool:
        """Whether the agent is in the first process namespace of the kernel."""
        return os.readlink("/proc/self/ns/pid") == _PROCESS_NAMESPACE_OF_THE_KERNEL

    @property
    def apart(self) -> bool:
        """Whether the agent has other mounts than process 1, a mount namespace of its own, or may have: that cannot be
        told.
        """
        return self.known_apart is not False

    @cached_property
    def known_apart(self) -> bool | None:
        """Whether it has; None where not both tables of mounts can be read."""
        if not self.doubt:
            return mount_namespace(_FIRST) != mount_namespace("self")
        first, own = _mounts_of(_FIRST), _mounts_of("self")
        return not {each.number for each in first} & {each.number for each in own} if first and own else None

    @cached_property
    def has_its_files(self) -> bool:
        """Whether the agent's `/` is known to be that of process 1: not a container's."""
        if not self.apart:
            return True
        first, own = _root_in(_mounts_of(_FIRST)), _root_in(_mounts_of("self"))
        return first is not None and first == own

    def namespace(self) -> Namespace:
        """The mount namespace in which paths are the machine's."""
        return mount_namespace(_FIRST if not self.doubt else "self")

    @property
    def root(self) -> str:
        """Where the agent has the machine's files: '' if in its own root."""
        return _FIRST_ROOT if self.apart and not self.doubt else ""

    def status_of(self, path: str) -> os.stat_result:
        """What the machine has at an absolute path. Raise OSError also if a link is on the way.

        Below another root no link may be followed: an absolute one would lead back into the agent's own.
        """
        if not self.root:
            return os.lstat(path)
        folder, name = _folder_of(self.root, path)
        try:
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(folder)

    def open(self, path: str) -> int:
        """A file of the machine's, open for reading, as `status_of` finds it."""
        if not self.root:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        folder, name = _folder_of(self.root, path)
        try:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)


@cache
def machine() -> Machine:
    """The one that this process serves."""
    return Machine()


def outlives_the_mounts(folder: str) -> bool:
    """Whether what is in a folder is still there without the agent's mounts: it lies neither on the agent's own `/` nor
    in a memory of these mounts' own.
    """
    real = os.path.realpath(folder)
    above = {os.fsencode(each) for each in (real, *map(str, PurePath(real).parents))}
    holding = [each for each in _mounts_of("self") if each.point in above]
    if not holding:
        return False
    longest = max(len(each.point) for each in holding)
    mount = [each for each in holding if len(each.point) == longest][-1]
    own_memory = mount.kind == b"tmpfs" and mount.device not in {each.device for each in _mounts_of(_FIRST)}
    return mount.point != b"/" and not own_memory


def mount_namespace(pid: int | str) -> Namespace:
    """The kernel's number of a process's mount namespace. Raise OSError."""
    status = os.stat(f"/proc/{pid}/ns/mnt")
    return status.st_dev, status.st_ino


def _doubt() -> str:
    if os.readlink("/proc/1/ns/user") != os.readlink("/proc/self/ns/user"):
        return "process 1 is in another user namespace than the agent"
    if os.stat(f"/proc/{_FIRST}").st_uid != 0:
        return "process 1 is not root's"
    mount_namespace(_FIRST)
    os.stat(_FIRST_ROOT)
    return ""


def _descends_from_the_first() -> bool:
    """Whether process 1 is what all of this began with. Who was put into a container's process namespace from outside
    has no parent in there. (A process that outlives who put it there has process 1 as its parent, and cannot be told.)
    """
    own = os.pidfd_open(os.getpid())
    try:
        line, _ = line_of((os.getpid(), birth_of(os.getpid(), own)), own)
        return line[-1][0] == _FIRST
    finally:
        os.close(own)


def _mounts_of(pid: int | str) -> list[_Mount]:
    """Nothing if that may not be read, as with hidepid, or is too long."""
    content = bytearray()
    try:
        with open(f"/proc/{pid}/mountinfo", "rb", buffering=0) as file:
            while len(content) <= MOUNT_TABLE_MAX_BYTES and (part := file.read(65_536)):
                content += part
    except OSError:
        return []
    lines = [line.partition(b" - ") for line in bytes(content).splitlines()]
    split = [(before.split(b" "), after.split(b" ")) for before, _, after in lines]
    found = [_Mount(each[0], each[2], each[3], each[4], after[0]) for each, after in split if len(each) > 5]
    return found if len(content) <= MOUNT_TABLE_MAX_BYTES else []


def _root_in(mounts: list[_Mount]) -> tuple[bytes, bytes] | None:
    """What is at `/`, or None if that is not told."""
    found = [(each.device, each.root) for each in mounts if each.point == b"/"]
    return found[-1] if found else None


def _folder_of(root: str, path: str) -> tuple[int, str]:
    """The folder of an absolute path below a root, open, and the last name. Raise OSError, also at a link."""
    *above, name = path.split("/")[1:] or [""]
    if not path.startswith("/") or not {"", ".", ".."}.isdisjoint((*above, name)):
        raise FileNotFoundError(2, "not the path of a file", path)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    at = os.open(root, flags)
    try:
        for each in above:
            below = os.open(each, flags | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
    except BaseException:
        os.close(at)
        raise
    return at, name
