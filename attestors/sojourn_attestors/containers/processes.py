"""The processes in a container's cgroup: which was first, and who shares all with it."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from sojourn.errors import AttestationFailed
from sojourn.limits import CONTAINER_CGROUPS_MAX, CONTAINER_PROCESSES_MAX
from sojourn.plugins.attestor import Cgroup, Subject, parent_and_birth

from sojourn_attestors.containers.paths import cgroups_named
from sojourn_attestors.kernel.cgroupfolders import CgroupFolders
from sojourn_attestors.kernel.namespaces import Namespace, namespace_of, namespaces_of
from sojourn_attestors.kernel.processes import has_ended

_UNREADABLE: Final = "the process's namespaces cannot be read: that takes CAP_SYS_PTRACE, as root has"


class NotInside(AttestationFailed):
    """The process shows signs of a container that it is not in: its cgroup or its mounts, without its namespaces."""


def check_shared(subject: Subject, container: str, cgroups: frozenset[Cgroup], first: int) -> None:
    """Raise NotInside unless `subject` and the process `first` are both in exactly these cgroups of the container, and
    in the same namespaces of each kind. Raise AttestationFailed if one has gone.
    """
    with _pinned(first):
        try:
            theirs = cgroups_named(container, _cgroup_text(first))
            if theirs != cgroups or cgroups_named(container, subject.cgroup) != cgroups:
                raise NotInside("the process is not in the cgroups of the container's first process")
        except (OSError, ValueError) as error:
            raise AttestationFailed("the container's first process has gone", detail=str(error)) from error
        try:
            inner, own = namespaces_of(first), namespaces_of(subject.pid)
        except OSError as error:
            raise AttestationFailed(_UNREADABLE, detail=str(error)) from error
    foreign = sorted(kind for kind in inner.keys() | own.keys() if inner.get(kind) != own.get(kind))
    if foreign:
        raise NotInside(f"the process is not in the container's namespaces: {', '.join(foreign)}")


def first_of(container: str, cgroups: frozenset[Cgroup], folders: CgroupFolders) -> int:
    """The pid of the oldest process in these cgroups whose parent is elsewhere.

    Whoever came from outside has a parent there, as has what the runtime itself started. So all of these must be in one
    mount namespace, which is not the machine's: else raise NotInside. Raise AttestationFailed if there is none.
    """
    parents, births = _members(container, cgroups, folders)
    roots = [pid for pid, parent in parents.items() if parent not in parents]
    if not roots:
        raise AttestationFailed("the container has no process")
    first = min(roots, key=lambda pid: (births[pid], pid))
    with _pinned(first):
        theirs = _mount_namespace(first)
        if theirs in _machines(parents):
            raise NotInside("the oldest process in the container's cgroup is in no container")
        if any(_mount_namespace(pid) not in {theirs, None} for pid in roots):
            raise NotInside("there are processes in the container's cgroup that are not the container's")
    return first


def _members(
    container: str, cgroups: frozenset[Cgroup], folders: CgroupFolders
) -> tuple[Mapping[int, int], Mapping[int, int]]:
    """The parent and the moment of birth of each process that is in all of these cgroups."""
    parents: dict[int, int] = {}
    births: dict[int, int] = {}
    for pid in _candidates(cgroups, folders):
        try:
            text = _cgroup_text(pid)
            if container not in text or cgroups_named(container, text) != cgroups:
                continue
            parents[pid], births[pid] = parent_and_birth(pid)
        except (OSError, ValueError):
            continue  # it has ended
        if len(parents) > CONTAINER_PROCESSES_MAX:
            raise AttestationFailed(f"the container has more than {CONTAINER_PROCESSES_MAX} processes")
    return {pid: parent for pid, parent in parents.items() if pid in births}, births


def _candidates(cgroups: frozenset[Cgroup], folders: CgroupFolders) -> Iterable[int]:
    """Those in one of the cgroups, or every process there is where their folders are out of sight.

    Raise AttestationFailed if there are too many cgroups in it: a container that may make some makes as many as it
    likes, and none of them needs a process.
    """
    for cgroup in cgroups:
        if (folder := folders.folder(cgroup)) is not None:
            return _in_folder(folder)
    return map(int, filter(str.isdecimal, os.listdir("/proc")))


def _in_folder(folder: str) -> Iterator[int]:
    left = [folder]
    for seen in itertools.count(1):
        if not left:
            return
        below = left.pop()
        try:
            with open(f"{below}/cgroup.procs", encoding="ascii") as file:
                yield from map(int, file)
        except OSError:  # it has gone, or its processes are listed above
            pass
        with suppress(OSError), os.scandir(below) as found:
            for each in found:
                if each.is_dir(follow_symlinks=False):
                    left.append(each.path)
                    if seen + len(left) > CONTAINER_CGROUPS_MAX:
                        raise AttestationFailed(f"the container has more than {CONTAINER_CGROUPS_MAX} cgroups")


def _machines(members: Mapping[int, int]) -> set[Namespace]:
    """The mount namespaces that no other container has: this agent's own, and that of what started the machine."""
    found: set[Namespace] = set()
    for pid in {1, os.getpid()} - members.keys():
        with suppress(OSError):  # not even root may look at process 1 everywhere
            found.add(namespace_of(pid, "mnt"))
    return found


def _mount_namespace(pid: int) -> Namespace | None:
    """None: it has ended."""
    try:
        return namespace_of(pid, "mnt")
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise AttestationFailed(_UNREADABLE, detail=str(error)) from error


def _cgroup_text(pid: int) -> str:
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


@contextmanager
def _pinned(pid: int) -> Iterator[None]:
    """What is read inside is of one living process. Raise AttestationFailed if it has gone, also in between."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError, OverflowError) as error:
        raise AttestationFailed("the container's first process has gone", detail=str(error)) from error
    try:
        _check_alive(pidfd)
        yield
        _check_alive(pidfd)
    finally:
        os.close(pidfd)


def _check_alive(pidfd: int) -> None:
    if has_ended(pidfd):
        raise AttestationFailed("the container's first process has gone")
