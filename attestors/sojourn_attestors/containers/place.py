"""Which container a process is in, as far as the kernel tells, and whether it truly is inside.

The names of a process's cgroups only say which container to ask the engine about. It is in that container if it
shares the cgroups and all namespaces of the container's first process (`check_inside`): whoever merely got into a
container's cgroup, or shows its mounts, is not.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Literal

from sojourn.attestation.machine import machine, mount_namespace
from sojourn.errors import AttestationFailed
from sojourn.limits import CONTAINERS_NESTED_MAX
from sojourn.plugins.attestor import Cgroup, Subject

from sojourn_attestors.containers.mounts import container_of_mounts
from sojourn_attestors.containers.paths import Named, named_in
from sojourn_attestors.containers.processes import NotInside, check_shared, first_of
from sojourn_attestors.kernel.cgroupfolders import CgroupFolders
from sojourn_attestors.kernel.mounts import mounts_of
from sojourn_attestors.kernel.namespaces import user_namespace_owner
from sojourn_attestors.kernel.programs import Threads

__all__ = ["Containers", "NotInside", "OfUser", "Place"]


class OfUser(AttestationFailed):
    """The container, if it is one, is of a user's own engine, who decides what that says: it is none of root's.

    `uid`: whose.
    """

    def __init__(self, uid: int) -> None:
        super().__init__(f"the process is in a container, or what looks like one, of user {uid}")
        self.uid = uid


@dataclass(frozen=True, slots=True)
class Place:
    """A container that a process seems to be in."""

    id: str  # 64 lower-case hexadecimal digits
    runtime: str  # docker, libpod, cri-containerd, crio or nerdctl; '' if its name does not tell
    pod: str  # the pod's uid as the kubelet has it (dashes), '' unless the path has the kubelet's shape
    found: Literal["cgroup", "mounts"]
    cgroups: frozenset[Cgroup]  # the container's own cgroup in each hierarchy that tells; none if found by mounts
    owner: int  # the uid of whoever could have made that cgroup; 0 is the machine's root
    enclosing: tuple["Place", ...] = ()  # containers that this one is nested in, the innermost first


class Containers:
    """Finds and checks. `rootless`: containers of users' own engines are told too (`Place.owner` is then theirs)."""

    def __init__(self, pool: Executor, *, rootless: bool = False) -> None:
        self._pool = pool
        self._threads = Threads(
            pool, served=lambda _: True
        )  # anyone may make mounts that take a second to look through
        self._rootless = rootless
        self._folders = CgroupFolders()

    async def locate(self, subject: Subject) -> Place | None:
        """The innermost container that the process seems to be in, or None: it is in none.

        Raise AttestationFailed if that cannot be told (the names contradict each other, the folders are not root's),
        and OfUser if it is a user's own container and those are not asked for.
        """
        place = self._by_cgroups(subject.cgroup)
        if place is None:
            looking = await self._threads.start(subject.who, subject.pid, lambda: _by_mounts(subject.pid))
            place = await asyncio.wrap_future(looking)
        if place is not None and place.owner and not self._rootless:
            raise OfUser(place.owner)
        return place

    async def check_inside(self, subject: Subject, place: Place, init_pid: int) -> None:
        """Raise NotInside unless the process shares the cgroups and all namespaces of the container's first process.

        `place` is what `locate` found for it, or one that encloses that. `init_pid` is what the engine says
        (`State.Pid`), or `first_process` found. Raise AttestationFailed if that process has gone.
        """
        check_shared(subject, place.id, place.cgroups, init_pid)

    async def first_process(self, place: Place) -> int:
        """The pid of the container's first process, for when no engine tells.

        It is the oldest in the container's cgroup of those whose parents are elsewhere. Raise AttestationFailed if
        there is none, NotInside if it is in no container or any of those has another mount namespace than it has.
        """
        if not place.cgroups:
            raise AttestationFailed("the container has no cgroup of its own to look for its first process in")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, first_of, place.id, place.cgroups, self._folders)

    def _by_cgroups(self, text: str) -> Place | None:
        try:
            lines = [(cgroup, named) for cgroup, named in named_in(text) if named]
        except ValueError as error:
            raise AttestationFailed("the process's cgroups cannot be read", detail=str(error)) from error
        if not lines:
            return None
        if len({tuple((each.id, each.runtime, each.pod) for each in named) for _, named in lines}) > 1:
            raise AttestationFailed("the process's cgroups name different containers", detail=text[:2000])
        if len(lines[0][1]) > CONTAINERS_NESTED_MAX:
            raise AttestationFailed(f"the process's cgroup is nested in more than {CONTAINERS_NESTED_MAX} containers")
        places: tuple[Place, ...] = ()
        for depth, named in enumerate(lines[0][1]):
            owner = self._owner([(cgroup, each[depth]) for cgroup, each in lines])
            cgroups = frozenset(replace(cgroup, path=each[depth].path) for cgroup, each in lines)
            places = (Place(named.id, named.runtime, named.pod, "cgroup", cgroups, owner, places), *places)
        return places[0]

    def _owner(self, lines: Sequence[tuple[Cgroup, Named]]) -> int:
        owners = {self._owner_of(replace(cgroup, path=named.path), named) for cgroup, named in lines} - {0}
        if len(owners) > 1:
            raise AttestationFailed("the process's cgroups lie in folders of several users")
        return owners.pop() if owners else 0

    def _owner_of(self, cgroup: Cgroup, named: Named) -> int:
        owner = self._folders.owner(cgroup)
        if owner is None and not named.sure:
            raise AttestationFailed(
                "this agent cannot see whose the process's cgroup is: let it run in the machine's cgroup namespace, and"
                " mount the machine's /sys/fs/cgroup where it is in a container",
                detail=cgroup.path,
            )
        return owner or 0


def _by_mounts(pid: int) -> Place | None:
    try:
        try:
            if mount_namespace(pid) == machine().namespace():
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
