"""Whether a process is in a unit's cgroup, and who could have put it there."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sojourn.errors import AttestationFailed
from sojourn.plugins.attestor import Cgroup

from sojourn_attestors.kernel.cgroupfolders import OTHERS_WRITE, CgroupFolders

_NAMED: Final = ("name=systemd",)


def cgroup_within(cgroups: Sequence[Cgroup], unit: str) -> Cgroup | None:
    """The cgroup of a process by which it is in that of a unit; None if it is not.

    Systemd keeps its units in the unified hierarchy, or where there is none in a named one of its own. That one counts
    if the process is at the root of the unified one, as all are that nobody keeps there.
    """
    unified = next((each for each in cgroups if each.unified), None)
    if unified is not None and _within(unified.path, unit):
        return unified
    if unified is not None and unified.path != "/":
        return None
    return next((each for each in cgroups if each.controllers == _NAMED and _within(each.path, unit)), None)


def owners_down_to(folders: CgroupFolders, cgroup: Cgroup, unit: str) -> set[int]:
    """The users who could have put a process into `cgroup`, as one of them owns a folder on the way.

    In the unified hierarchy it takes a folder that the process's old and new cgroup have in common: that is above the
    unit's, or is the unit's own where systemd moves it for its user. Elsewhere it takes the new one alone. Raise
    AttestationFailed if that cannot be told.
    """
    path = unit if cgroup.unified else cgroup.path
    folder = folders.folder(replace(cgroup, path=path))
    if folder is None:
        raise AttestationFailed("this agent does not see the cgroups of systemd: it takes /sys/fs/cgroup", detail=path)
    owners: set[int] = set()
    try:
        device = os.lstat(folder).st_dev
        for _ in range(path.count("/") + 1):
            status = os.lstat(folder)
            if status.st_dev != device:  # above where they are mounted
                break
            owners |= _owners(folder, status)
            folder = os.path.dirname(folder)
    except FileNotFoundError as error:
        raise AttestationFailed("the process's cgroup has gone", detail=str(error)) from error
    return owners


def slice_of(control_group: str) -> str:
    """The slice that a unit's cgroup is in: systemd names cgroups as units, with `_` before what would be ambiguous."""
    above = control_group.rpartition("/")[0].rpartition("/")[2] or "-.slice"
    return above.removeprefix("_")


def _within(path: str, unit: str) -> bool:
    return len(unit) > 1 and (path == unit or path.startswith(f"{unit}/"))


def _owners(folder: str, status: os.stat_result) -> set[int]:
    """The users who may put processes into a cgroup, or move its folder."""
    procs = os.lstat(f"{folder}/cgroup.procs")
    if (status.st_mode | procs.st_mode) & OTHERS_WRITE:
        raise AttestationFailed("others than its owner may write to the process's cgroup", detail=folder)
    return {status.st_uid, procs.st_uid}
