"""The cgroups of a process, as the kernel lists them in /proc/PID/cgroup."""

import re
from dataclasses import dataclass
from typing import Final

_CONTAINER: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One line: where a process is in one hierarchy. The unified one (cgroup v2) has number 0 and no controllers.

    `path` is as the kernel shows it to us. Whoever may make a cgroup chose its name: it may hold anything but a slash
    and a newline. What is not UTF-8 in it is escaped as surrogates.
    """

    hierarchy: int
    controllers: tuple[str, ...]
    path: str

    @property
    def unified(self) -> bool:
        return self.hierarchy == 0


def parse_cgroups(text: str) -> tuple[Cgroup, ...]:
    """The lines of /proc/PID/cgroup. Raise ValueError if that is what no kernel writes."""
    return tuple(_parse(line) for line in text.split("\n") if line)


def outermost(text: str) -> str:
    """A /proc/PID/cgroup up to the first name of a container in it: the same for all cgroups that are made inside."""
    found = _CONTAINER.search(text)
    return text[: found.end()] if found else text


def _parse(line: str) -> Cgroup:
    number, _, rest = line.partition(":")
    controllers, colon, path = rest.partition(":")
    if not (number.isascii() and number.isdecimal()) or not colon or not path.startswith("/"):
        raise ValueError(f"not a line of /proc/PID/cgroup: {line[:100]!r}")
    return Cgroup(int(number), tuple(filter(None, controllers.split(","))), path)
