"""Which start of the machine this is: times on the boot clock mean nothing in any other."""

from pathlib import Path


def boot_id() -> str:
    """As the kernel says it (random(4)): the same until the machine starts anew."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
