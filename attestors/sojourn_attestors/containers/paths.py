"""Which containers a cgroup's path names: the grammar by which engines and the kubelet name their cgroups.

A name alone proves nothing, as whoever may make a cgroup chooses its name. What it takes besides is in `containers`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from sojourn.plugins.attestor import Cgroup, parse_cgroups

_ID: Final = "(?P<id>[0-9a-f]{64})"
_RUNTIMES: Final = "(?P<runtime>docker|libpod|cri-containerd|crio|nerdctl)"
_CONTAINERS: Final = tuple(
    map(
        re.compile,
        (
            _ID,  # cgroupfs driver: Docker, containerd
            f"{_RUNTIMES}-{_ID}",  # cgroupfs driver: Podman, CRI-O
            rf"{_RUNTIMES}-{_ID}\.scope",  # systemd driver
            f"(?:(?P<pod>[^/:]+)|):{_RUNTIMES}:{_ID}",  # a name for the systemd driver, taken by the cgroupfs driver
            f"libpod-payload-{_ID}",  # Podman, if conmon shares the container's cgroup
        ),
    )
)
_HEX: Final = "[0-9a-f]"
_DASHED: Final = f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"
_UNDERSCORED: Final = f"{_HEX}{{8}}_{_HEX}{{4}}_{_HEX}{{4}}_{_HEX}{{4}}_{_HEX}{{12}}"  # as slices have it
_PLAIN: Final = f"{_HEX}{{32}}"  # of a static pod: the hash of its file
_SLICE: Final = "(?:[A-Za-z0-9_.]+-)*kubepods(?:-besteffort|-burstable)?"
_POD: Final = re.compile(rf"pod(?P<uid>{_DASHED}|{_PLAIN})|{_SLICE}-pod(?P<slice>{_UNDERSCORED}|{_PLAIN})\.slice")
_SURE_PARENT: Final = re.compile(
    rf"docker|libpod_parent|(?:system|machine|kubelet)\.slice|kubepods|besteffort|burstable|{_SLICE}\.slice"
)


@dataclass(frozen=True, slots=True)
class Named:
    """A container as a cgroup's path names it. `path` ends with the container's own cgroup.

    `runtime` is '' where the name does not tell it; `pod` is the pod's uid with dashes, '' unless the path has the
    kubelet's shape; `sure`: no name on the path is one that a user could have given in a folder of their own.
    """

    id: str
    runtime: str
    pod: str
    path: str
    sure: bool


def containers_of(path: str) -> tuple[Named, ...]:
    """The containers that a path of /proc/PID/cgroup names, the innermost last. Raise ValueError if it is not one.

    A path may begin with `/..` for each step above the root of our own cgroup namespace.
    """
    names = [] if path == "/" else path.split("/")[1:]
    if not path.startswith("/") or path.endswith(" (deleted)"):
        raise ValueError(f"not the path of a living cgroup: {path[:200]!r}")
    above = 0
    while above < len(names) and names[above] == "..":
        above += 1
    if any(name in {"", ".", ".."} for name in names[above:]):
        raise ValueError(f"not a path: {path[:200]!r}")
    found: list[Named] = []
    sure = True
    for at in range(above, len(names)):
        container = next(filter(None, (form.fullmatch(names[at]) for form in _CONTAINERS)), None)
        if container is None:
            sure = sure and bool(_SURE_PARENT.fullmatch(names[at]) or _POD.fullmatch(names[at]))
            continue
        parts = container.groupdict()
        parent = parts.get("pod") or (names[at - 1] if at > above else "")
        runtime = parts.get("runtime") or ("libpod" if names[at].startswith("libpod") else "")
        found.append(Named(parts["id"], runtime, _pod(parent), "/" + "/".join(names[: at + 1]), sure))
        sure = False  # inside a container, names are the container's
    return tuple(found)


def named_in(text: str) -> Iterator[tuple[Cgroup, tuple[Named, ...]]]:
    """Each line of a /proc/PID/cgroup with the containers that it names. Raise ValueError if that is not one."""
    for cgroup in parse_cgroups(text):
        yield cgroup, containers_of(cgroup.path)


def cgroups_named(container: str, text: str) -> frozenset[Cgroup]:
    """The cgroups of a container, by its id, that a /proc/PID/cgroup tells of. Raise ValueError as `named_in` does."""
    return frozenset(
        replace(cgroup, path=named.path) for cgroup, found in named_in(text) for named in found if named.id == container
    )


def _pod(name: str) -> str:
    pod = _POD.fullmatch(name)
    return (pod["uid"] or pod["slice"]).replace("_", "-") if pod else ""
