"""Names of systemd's units, and which unit of a user's own systemd a cgroup belongs to (systemd.unit(5))."""

import re
from collections.abc import Sequence
from typing import Final

UNIT_NAME_MAX_BYTES: Final = 255  # systemd.unit(5), "Description"
UNIT_PATHS: Final = "/org/freedesktop/systemd1/unit/"
# Kinds of units that have processes, each with the D-Bus interface that tells of its cgroup.
INTERFACES: Final = {
    kind: f"org.freedesktop.systemd1.{kind.capitalize()}"
    for kind in ("service", "scope", "socket", "mount", "swap", "slice")
}
_NAME: Final = re.compile(rf"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\@-]*)?\.(?:{'|'.join(INTERFACES)})")
_INSTANCE: Final = re.compile(r"([^@]+)@(.+)\.([a-z]+)")
_USER_MANAGER: Final = re.compile(r"user@(0|[1-9][0-9]{0,9})\.service")
_ESCAPED: Final = re.compile(r"_([0-9a-f]{2})")


def kind_of(name: str) -> str:
    """`service` of `a.service`; '' if this is no name of a unit that has processes."""
    if len(name) > UNIT_NAME_MAX_BYTES or not _NAME.fullmatch(name):
        return ""
    return name.rpartition(".")[2]


def template_of(name: str) -> tuple[str, str]:
    """The template that a unit is an instance of, and the instance: `a@.service` and `1` of `a@1.service`; or ''s.

    The instance is as it stands in the name, where systemd escapes it.
    """
    found = _INSTANCE.fullmatch(name)
    return (f"{found[1]}@.{found[3]}", found[2]) if found else ("", "")


def name_of(path: str) -> str:
    """The unit's name in its D-Bus path, or ''."""
    label = path.removeprefix(UNIT_PATHS)
    if label == path or "/" in label:
        return ""
    try:
        return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]).decode("ascii"), label)
    except UnicodeDecodeError:
        return ""


def user_of(name: str) -> int | None:
    """The uid whose own systemd this unit is, or None."""
    found = _USER_MANAGER.fullmatch(name)
    return int(found[1]) if found else None


def user_unit(below: Sequence[str]) -> tuple[str, str]:
    """The unit of a user's systemd that a cgroup belongs to, and its innermost slice; ''s where there is none.

    `below`: the names of the folders from the cgroup of that systemd's own unit down. Systemd puts a cgroup's folder
    into those of its slices, and escapes what the kernel would have as a name of its own.
    """
    innermost = ""
    for folder in below:
        name = folder.removeprefix("_")
        kind = kind_of(name)
        if kind != "slice":
            return (name, innermost) if kind else ("", innermost)
        innermost = name
    return "", innermost
