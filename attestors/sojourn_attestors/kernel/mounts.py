"""Mount tables as the kernel lists them in /proc/PID/mountinfo (proc_pid_mountinfo(5))."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sojourn.errors import AttestationFailed
from sojourn.limits import MOUNT_TABLE_MAX_BYTES

_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount: of which device, which part of its file system (`root`), where. What is not UTF-8 is escaped."""

    id: int
    device: int
    root: str
    point: str
    kind: str
    options: tuple[str, ...]


def mounts_of(pid: int | str) -> Iterator[Mount]:
    """The mounts that a process sees. Raise AttestationFailed if they are too many, OSError if it has gone."""
    descriptor = os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = bytearray()
        while part := os.read(descriptor, 65_536):
            content += part
            if len(content) > MOUNT_TABLE_MAX_BYTES:
                raise AttestationFailed(f"the process's mount table is larger than {MOUNT_TABLE_MAX_BYTES} bytes")
    finally:
        os.close(descriptor)
    for line in content.split(b"\n"):
        fields, _, rest = bytes(line).partition(b" - ")
        before, after = fields.split(b" "), rest.split(b" ")
        if len(before) < 6 or len(after) < 3:
            continue
        major, _, minor = before[2].partition(b":")
        yield Mount(
            int(before[0]),
            os.makedev(int(major), int(minor)),
            _text(before[3]),
            _text(before[4]),
            _text(after[0]),
            tuple(_text(after[2]).split(",")),
        )


def _text(field: bytes) -> str:
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field).decode("utf-8", "surrogateescape")
