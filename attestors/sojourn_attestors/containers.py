"""Which container a process is in, as far as the kernel tells, and whether it truly is inside.

The names of a process's cgroups only say which container to ask the engine about. It is in that container if it
shares the cgroups and all namespaces of the container's first process (`check_inside`): whoever merely got into a
container's cgroup, or shows its mounts, is not.
"""

import asyncio
import os
import select
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from sojourn.attestation.attestor import Cgroup, Subject, parse_cgroups
from sojourn.errors import AttestationFailed

from sojourn_attestors.cgroupfolders import CgroupFolders
from sojourn_attestors.containermounts import container_of_mounts
from sojourn_attestors.containerpaths import Named, containers_of
from sojourn_attestors.mounts import mounts_of
from sojourn_attestors.namespaces import namespace_of, namespaces_of, user_namespace_owner

__all__ = ["Containers", "NotInside", "OfUser", "Place"]

PROCESSES_MAX: Final = 20_000  # of one container: more take longer to look through than a caller may wait
_Found = TypeVar("_Found")


class NotInside(AttestationFailed):
    """The process shows signs of a container that it is not in: its cgroup or its mounts, without its namespaces."""


class OfUser(AttestationFailed):
    """The container is one of a user's own engine, who decides what that says. `uid`: whose."""

    def __init__(self, uid: int) -> None:
        super().__init__(f"the process is in a cgroup of user {uid}, who can give it any name")
        self.uid = uid


@dataclass(frozen=True, slots=True)
class Place:
    """A container that a process seems to be in."""

    id: str  # 64 lower-case hexadecimal digits
    runtime: str  # docker, libpod, cri-containerd, crio or nerdctl; '' if its name does not tell
    pod: str  # the pod's uid as the kubelet has it (dashes), '' unless the path has the kubelet's shape
    found: Literal["cgroup", "mounts"]
    cgroups: frozenset[tuple[int, str]]  # number of the hierarchy, path of the container's own cgroup; empty by mounts
    owner: int  # the uid of whoever could have made that cgroup; 0 is the machine's root
    enclosing: tuple["Place", ...] = ()  # containers that this one is nested in, the innermost first


class Containers:
    """Finds and checks. `rootless`: containers of users' own engines are told too (`Place.owner` is then theirs)."""

    def __init__(self, pool: Executor, *, rootless: bool = False) -> None:
        self._pool = pool
        self._rootless = rootless
        self._folders = CgroupFolders()

    async def locate(self, subject: Subject) -> Place | None:
        """The innermost container that the process seems to be in, or None: it is in none.

        Raise AttestationFailed if that cannot be told (the names contradict each other, the folders are not root's),
        and OfUser if it is a user's own container and those are not asked for.
        """
        place = self._by_cgroups(subject.cgroup)
        if place is None:
            place = await self._in_pool(lambda: self._by_mounts(subject.pid))
        if place is not None and place.owner and not self._rootless:
            raise OfUser(place.owner)
        return place

    async def check_inside(self, subject: Subject, place: Place, init_pid: int) -> None:
        """Raise NotInside unless the process shares the cgroups and all namespaces of the container's first process.

        `init_pid` is what the engine says (`State.Pid`), or `first_process` found. Raise AttestationFailed if that
        process has gone.
        """
        with _pinned(init_pid):
            _check_cgroups(subject, place, init_pid)
            _check_namespaces(subject.pid, init_pid)

    async def first_process(self, place: Place) -> int:
        """The pid of the container's first process, for when no engine tells.

        It is the oldest that is in the container's cgroup. Raise AttestationFailed if there is none, or if processes
        came from outside with another mount namespace than it has.
        """
        return await self._in_pool(lambda: self._first_process(place))

    async def _in_pool(self, work: Callable[[], _Found]) -> _Found:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _by_cgroups(self, text: str) -> Place | None:
        lines = [(cgroup, named) for cgroup, named in _named(text) if named]
        if not lines:
            return None
        if len({tuple((each.id, each.runtime, each.pod) for each in named) for _, named in lines}) > 1:
            raise AttestationFailed("the process's cgroups name different containers", detail=text[:2000])
        enclosing: tuple[Place, ...] = ()
        for depth, named in enumerate(lines[0][1]):
            at = [(cgroup, each[depth]) for cgroup, each in lines]
            cgroups = frozenset((cgroup.hierarchy, each.path) for cgroup, each in at)
            place = Place(named.id, named.runtime, named.pod, "cgroup", cgroups, self._owner(at), enclosing)
            enclosing = (place, *enclosing)
        return enclosing[0]

    def _owner(self, at: Sequence[tuple[Cgroup, Named]]) -> int:
        owners = {self._owner_of(cgroup, named) for cgroup, named in at} - {0}
        if len(owners) > 1:
            raise AttestationFailed("the process's cgroups lie in folders of several users")
        return owners.pop() if owners else 0

    def _owner_of(self, cgroup: Cgroup, named: Named) -> int:
        owner = self._folders.owner(cgroup, named.path)
        if owner is None and not named.sure:
            raise AttestationFailed(
                "this agent cannot see whose the process's cgroup is: let it see the machine's /sys/fs/cgroup",
                detail=named.path,
            )
        return owner or 0

    def _by_mounts(self, pid: int) -> Place | None:
        try:
            try:
                if namespace_of(pid, "mnt") == namespace_of("self", "mnt"):
                    return None
            except PermissionError:  # then what it mounts, which anyone may read, has to tell
                pass
            named = container_of_mounts(mounts_of(pid))
            if named is None:
                return None
            owner = user_namespace_owner(pid)
        except OSError as error:
            raise AttestationFailed("the process's namespaces cannot be read", detail=str(error)) from error
        return Place(named.id, named.runtime, named.pod, "mounts", frozenset(), owner)

    def _first_process(self, place: Place) -> int:
        if not place.cgroups:
            raise AttestationFailed("the container has no cgroup of its own to look for its first process in")
        parents: dict[int, int] = {}
        births: dict[int, int] = {}
        for pid in _members(place):
            try:
                parents[pid], births[pid] = _parent_and_birth(pid)
            except OSError:
                continue  # it ended meanwhile
        if not births:
            raise AttestationFailed("the container has no process")
        first = min(births, key=lambda pid: (births[pid], pid))
        with _pinned(first):
            ours = _mount_namespace(first)
            if ours == namespace_of("self", "mnt"):
                raise AttestationFailed("the container's first process is in no container")
            for pid, parent in parents.items():
                if parent not in parents and _mount_namespace(pid) not in {ours, None}:
                    raise AttestationFailed("the container's cgroup holds processes that are not the container's")
        return first


def _named(text: str) -> Iterator[tuple[Cgroup, tuple[Named, ...]]]:
    try:
        for cgroup in parse_cgroups(text):
            yield cgroup, containers_of(cgroup.path)
    except ValueError as error:
        raise AttestationFailed("the process's cgroups cannot be read", detail=str(error)) from error


def _cgroups_of(container: str, text: str) -> frozenset[tuple[int, str]]:
    """In which cgroups of a container a process is, by its /proc/PID/cgroup."""
    return frozenset(
        (cgroup.hierarchy, named.path) for cgroup, found in _named(text) for named in found if named.id == container
    )


def _check_cgroups(subject: Subject, place: Place, init_pid: int) -> None:
    theirs = _cgroups_of(place.id, _read(init_pid, "cgroup"))
    if _cgroups_of(place.id, subject.cgroup) != theirs or theirs != place.cgroups:
        raise NotInside("the process is not in the cgroups of the container's first process")


def _check_namespaces(pid: int, init_pid: int) -> None:
    try:
        theirs, own = namespaces_of(init_pid), namespaces_of(pid)
    except OSError as error:
        raise AttestationFailed(
            "the process's namespaces cannot be read: that takes CAP_SYS_PTRACE, as root has", detail=str(error)
        ) from error
    foreign = sorted(kind for kind in theirs.keys() | own.keys() if theirs.get(kind) != own.get(kind))
    if foreign:
        raise NotInside(f"the process is not in the container's namespaces: {', '.join(foreign)}")


def _members(place: Place) -> Iterator[int]:
    """The processes in the container's cgroups, also if this agent does not see their folders."""
    count = 0
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            text = _read(int(name), "cgroup")
        except AttestationFailed:
            continue
        if _cgroups_of(place.id, text) == place.cgroups:
            count += 1
            if count > PROCESSES_MAX:
                raise AttestationFailed(f"the container has more than {PROCESSES_MAX} processes")
            yield int(name)


def _parent_and_birth(pid: int) -> tuple[int, int]:
    """The parent's pid and the moment of birth in clock ticks since boot, from /proc/PID/stat (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    fields = text[text.rfind(b")") + 2 :].split()
    return int(fields[1]), int(fields[19])


def _mount_namespace(pid: int) -> tuple[int, int] | None:
    """None: it has ended."""
    try:
        return namespace_of(pid, "mnt")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AttestationFailed("the process's namespaces cannot be read", detail=str(error)) from error


def _read(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise AttestationFailed("the process has gone", detail=str(error)) from error


@contextmanager
def _pinned(pid: int) -> Iterator[None]:
    """What is read inside is of one living process. Raise AttestationFailed if it has gone, also in between."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, OverflowError) as error:
        raise AttestationFailed("the container's first process has gone", detail=str(error)) from error
    try:
        yield
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(0):
            raise AttestationFailed("the container's first process has gone")
    finally:
        os.close(pidfd)
