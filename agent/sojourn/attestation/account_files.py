"""The machine's users and groups by its own files, for an agent that has other ones: in a container.

What the machine asks beside them (LDAP, sssd) is out of its reach: such users have a number, and no name.
"""

import os
from typing import Literal

from sojourn.attestation.machine import Machine
from sojourn.limits import ACCOUNT_FILE_MAX_BYTES

File = Literal["passwd", "group"]


def name_in(machine: Machine, file: File, number: int) -> str | None:
    """The name of an id, if that name means this id and no other. Raise OSError if that cannot be told."""
    accounts = accounts_in(machine, file)
    name = next((name for name, each in accounts if each == number), None)
    if name is None or number_in(accounts, name) != number or not name.isprintable():
        return None
    return name


def number_in(accounts: list[tuple[str, int]], name: str) -> int | None:
    """The id that a name means."""
    return next((number for each, number in accounts if each == name), None)


def accounts_in(machine: Machine, file: File) -> list[tuple[str, int]]:
    """Names and ids, in the order of the file: of two alike the first counts. Raise OSError if it cannot be read."""
    descriptor = machine.open(f"/etc/{file}")
    with os.fdopen(descriptor, "rb") as opened:
        content = opened.read(ACCOUNT_FILE_MAX_BYTES + 1)
    if len(content) > ACCOUNT_FILE_MAX_BYTES:
        raise OSError(27, f"/etc/{file} is larger than {ACCOUNT_FILE_MAX_BYTES} bytes")
    found: list[tuple[str, int]] = []
    for line in content.split(b"\n"):
        fields = line.split(b":")
        try:
            found.append((fields[0].decode(), int(fields[2])))
        except (IndexError, ValueError):  # a comment, or `+` of NIS
            continue
    return [(name, number) for name, number in found if name and not name.startswith(("+", "-", "#"))]
