"""For which machine a compiled file is, by its first bytes."""

import struct

MACHINES = {62: "amd64", 183: "arm64"}


def machine(head: bytes) -> str | None:
    """Debian's name of it, or its number; None for what is no ELF file."""
    if not head.startswith(b"\x7fELF"):
        return None
    [number] = struct.unpack_from("<H", head, 18)
    return MACHINES.get(number, str(number))
