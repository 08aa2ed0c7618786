"""Which container a mount table names, for a process whose cgroups name none.

Engines mount files of theirs into each container, from a folder that has the container's id for a name. Whoever may
mount can show the like: the id is worth asking the engine about, and nothing more.
"""

import re
from collections.abc import Iterable
from typing import Final

from sojourn.errors import AttestationFailed

from sojourn_attestors.containers.paths import Named, containers_of
from sojourn_attestors.kernel.mounts import Mount

_PODMAN: Final = re.compile(r"(?:/.*)?/[a-z0-9]+-containers/(?P<id>[0-9a-f]{64})/userdata/\.containerenv")
_DOCKER: Final = re.compile(r"(?:/.*)?/containers/(?P<id>[0-9a-f]{64})/(?P<file>hostname|hosts|resolv\.conf)")


def container_of_mounts(mounts: Iterable[Mount]) -> Named | None:
    """The container that a mount table names. Raise AttestationFailed if it names two."""
    by_cgroup: dict[str, Named] = {}
    by_file: dict[str, str] = {}
    by_network: set[str] = set()  # another container's files, if it lends its network
    for mount in mounts:
        if mount.kind in {"cgroup", "cgroup2"}:
            by_cgroup.update({named.id: named for named in _innermost(mount.root)})
        elif mount.point == "/run/.containerenv" and (found := _PODMAN.fullmatch(mount.root)):
            by_file[found["id"]] = "libpod"
        elif (found := _DOCKER.fullmatch(mount.root)) and mount.point == f"/etc/{found['file']}":
            by_network.add(found["id"])
    ids = by_cgroup.keys() | by_file.keys() or by_network
    if len(ids) > 1:
        raise AttestationFailed("the process's mount table names several containers")
    for number in ids:
        named = by_cgroup.get(number)
        return Named(number, by_file.get(number, "docker"), "", "", sure=False) if named is None else named
    return None


def _innermost(root: str) -> tuple[Named, ...]:
    try:
        return containers_of(root)[-1:]
    except ValueError:
        return ()
