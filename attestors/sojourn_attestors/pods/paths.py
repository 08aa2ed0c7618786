"""Where a kubelet makes the cgroups of pods, as opposed to where others could make ones that look the same.

Nobody tells which process of a pod's container is its first, so its cgroup alone must be beyond doubt: a container that
may make cgroups below its own could give one there the name of any pod.
"""

import re
from collections.abc import Sequence
from typing import Final

_PARENT: Final = re.compile(
    r"kubepods|besteffort|burstable|(?:[A-Za-z0-9_.]+-)*kubepods(?:-besteffort|-burstable)?\.slice"
)


def made_by_kubelet(path: str, root: str) -> bool:
    """Whether the path of a container's cgroup leads through nothing but what a kubelet makes below its root.

    `root`: the kubelet's `cgroupRoot`. A path may begin with `/..` for each step above the root of our own cgroup
    namespace; what is above that is out of sight, and so may parts of `root` be.
    """
    names, own = _names(path), _names(root)
    above = 0
    while above < len(names) and names[above] == "..":
        above += 1
    names = names[above:]
    hidden = range(len(own) + 1) if above else range(1)
    begun = next((len(own) - each for each in hidden if names[: len(own) - each] == own[each:]), None)
    return begun is not None and all(map(_PARENT.fullmatch, names[begun:-2]))


def _names(path: str) -> Sequence[str]:
    return [name for name in path.split("/") if name]
