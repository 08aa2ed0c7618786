"""The namespaces that a process is in, told apart by the kernel's own numbers for them."""

import fcntl
import os
from collections.abc import Mapping
from typing import Final

_NS_GET_PARENT: Final = 0xB702  # ioctl_ns(2)
_NS_GET_OWNER_UID: Final = 0xB704
_DEEPEST: Final = 33  # the kernel nests user namespaces no deeper

Namespace = tuple[int, int]


def namespaces_of(pid: int | str) -> Mapping[str, Namespace]:
    """Each kind of namespace of a process with its number. Raise OSError if it has gone or may not be looked at."""
    folder = f"/proc/{pid}/ns"
    kinds = [kind for kind in os.listdir(folder) if not kind.endswith("_for_children")]
    return {kind: namespace_of(pid, kind) for kind in kinds}


def namespace_of(pid: int | str, kind: str) -> Namespace:
    """The number of one namespace of a process, such as its `mnt`. Raise OSError as `namespaces_of` does."""
    status = os.stat(f"/proc/{pid}/ns/{kind}")
    return status.st_dev, status.st_ino


def user_namespace_owner(pid: int) -> int:
    """Who made the user namespace of a process, or the outermost of those that it is nested in: the uid, 0 if it is
    in ours. Raise OSError if it has gone or may not be looked at.
    """
    ours = namespace_of("self", "user")
    descriptor = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    owner = 0
    try:
        for _ in range(_DEEPEST):
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) == ours:
                break
            answer = bytearray(4)
            fcntl.ioctl(descriptor, _NS_GET_OWNER_UID, answer)
            owner = int.from_bytes(answer, "little")
            above = fcntl.ioctl(descriptor, _NS_GET_PARENT)
            os.close(descriptor)
            descriptor = above
        return owner
    finally:
        os.close(descriptor)
