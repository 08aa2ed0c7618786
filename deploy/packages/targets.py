"""What packages are made: for which system, with which Python, and what they need there."""

from dataclasses import dataclass
from typing import Final

# Wheels that run on each of the systems below, by the machine's name in Debian: their C libraries are newer than these.
_GLIBCS: Final = ("2_34", "2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")
_ALIASES: Final = ("manylinux2014", "manylinux2010", "manylinux1")
MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
_DEBIAN: Final = ("python3", "systemd (>= 249)", "systemd | systemd-sysusers", "libc6 (>= 2.34)")


@dataclass(frozen=True)
class Target:
    """One system's package."""

    name: str
    packager: str
    python: str
    release: str
    depends: tuple[str, ...]
    recommends: tuple[str, ...] = ()

    @property
    def interpreter(self) -> str:
        """The system's own Python, of that minor version alone: compiled modules are of one."""
        return f"/usr/bin/python{self.python}"

    def file_name(self, version: str, arch: str) -> str:
        """As the system's own packages are named."""
        if self.packager == "deb":
            return f"sojourn_{version}-{self.release}_{arch}.deb"
        return f"sojourn-{version}-{self.release}.{MACHINES[arch]}.rpm"


def _debian(name: str, python: str, release: str) -> Target:
    return Target(name, "deb", python, release, (f"python{python}", *_DEBIAN), ("ca-certificates", "dbus"))


def _red_hat(name: str, python: str, release: str, package: str) -> Target:
    needs = (package, "systemd >= 249", "glibc >= 2.34", f"/usr/bin/python{python}")
    return Target(name, "rpm", python, release, needs, ("ca-certificates", "dbus"))


TARGETS: Final = {
    each.name: each
    for each in (
        _debian("bookworm", "3.11", "1~deb12"),
        _debian("trixie", "3.13", "1~deb13"),
        _debian("noble", "3.12", "1~ubuntu24.04"),
        _red_hat("el9", "3.11", "1.el9", "python3.11"),
        _red_hat("el10", "3.12", "1.el10", "python3"),
    )
}


def platforms(arch: str) -> list[str]:
    """The tags of wheels that run on that machine, best first."""
    machine = MACHINES[arch]
    aliases = _ALIASES if arch == "amd64" else _ALIASES[:1]
    return [f"manylinux_{glibc}_{machine}" for glibc in _GLIBCS] + [f"{alias}_{machine}" for alias in aliases]
