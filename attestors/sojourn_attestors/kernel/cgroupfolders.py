"""The folders of cgroups, where this agent sees them: who could have made a cgroup of a given name."""

import os
import stat
import threading
from collections.abc import Sequence
from typing import Final

from sojourn.errors import AttestationFailed
from sojourn.plugins.attestor import Cgroup

from sojourn_attestors.kernel.mounts import Mount, mounts_of

OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class CgroupFolders:
    """Finds the folders of cgroups by this agent's own mount table, which is read again when one is not found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mounts: tuple[Mount, ...] = ()

    def folder(self, cgroup: Cgroup) -> str | None:
        """Where the folder of a cgroup is; None if it is out of sight."""
        found = self._find(cgroup)
        return None if found is None else "/".join((found[0].rstrip("/"), *found[1]))

    def owner(self, cgroup: Cgroup) -> int | None:
        """The uid of whoever could have given a cgroup its name: 0 if it is root alone.

        None if its folders are out of sight. Raise AttestationFailed if it may have been several users.
        """
        found = self._find(cgroup)
        if found is None:
            return None
        folder, names = found
        owners = {_owner(folder)}
        for name in names[:-1]:  # to make and name a folder takes the right to write into the one above
            folder = f"{folder.rstrip('/')}/{name}"
            owners.add(_owner(folder))
        owners.discard(0)
        if len(owners) > 1:
            raise AttestationFailed("the process's cgroup lies in folders of several users")
        return owners.pop() if owners else 0

    def _find(self, cgroup: Cgroup) -> tuple[str, Sequence[str]] | None:
        """Where its hierarchy is mounted, and the names from there down to it."""
        return _find(self._mounts, cgroup) or _find(self._again(), cgroup)

    def _again(self) -> tuple[Mount, ...]:
        mounts = tuple(each for each in mounts_of("self") if each.kind in {"cgroup", "cgroup2"})
        with self._lock:
            self._mounts = mounts
        return mounts


def _find(mounts: Sequence[Mount], cgroup: Cgroup) -> tuple[str, Sequence[str]] | None:
    above, names = _steps(cgroup.path)
    for mount in mounts:
        if not _same_hierarchy(mount, cgroup):
            continue
        root_above, root = _steps(mount.root)
        if root_above != above or names[: len(root)] != root or names == root:
            continue
        inside = names[len(root) :]
        try:
            if os.stat("/".join((mount.point.rstrip("/"), *inside))).st_dev == mount.device:
                return mount.point, inside
        except OSError:
            continue
    return None


def _same_hierarchy(mount: Mount, cgroup: Cgroup) -> bool:
    if cgroup.unified or mount.kind == "cgroup2":
        return cgroup.unified and mount.kind == "cgroup2"
    return set(cgroup.controllers) <= set(mount.options)


def _steps(path: str) -> tuple[int, tuple[str, ...]]:
    names = tuple(filter(None, path.split("/")))
    above = 0
    while above < len(names) and names[above] == "..":
        above += 1
    return above, names[above:]


def _owner(folder: str) -> int:
    try:
        status = os.lstat(folder)
    except OSError as error:
        raise AttestationFailed("the process's cgroup has gone", detail=str(error)) from error
    if status.st_mode & OTHERS_WRITE:
        raise AttestationFailed("the process's cgroup lies in a folder that others may write to", detail=folder)
    return status.st_uid
