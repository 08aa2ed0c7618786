"""The programs that change files of the image: of the image's own suite, so that those of this machine, whose releases
make other bytes, are none of its parts.
"""

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import debian_files

_STRIP = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
_PYTHON = ("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libexpat1")
_PACKAGES = ("libc6", "zlib1g", "libzstd1", "libbinutils", *_PYTHON)


@dataclass(frozen=True, slots=True)
class Tools:
    """They run on this machine, whatever the image's architecture is."""

    root: Path
    packages: tuple[debian_files.Package, ...]
    target: str

    def strip(self, libraries: Iterable[Path]) -> None:
        """Take the symbols for debuggers away."""
        program = f"usr/bin/{_STRIP[self.target]}-strip"
        self._run(program, "--strip-unneeded", "--enable-deterministic-archives", *map(str, libraries))

    def python(self, *arguments: str) -> None:
        """Run Python, of the release that the image has, and nothing of this machine's or the caller's."""
        environment = {"PYTHONHOME": str(self.root / "usr"), "PYTHONHASHSEED": "0", "PATH": "/nowhere"}
        self._run("usr/bin/python3.11", *arguments, environment=environment)

    def _run(self, program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        # Not by lib64, whose link leads to this machine's own, which may be of another C library.
        [loader] = self.root.glob("lib/*-linux-gnu/ld-linux-*.so.*")
        folders = (*self.root.glob("usr/lib/*-linux-gnu"), *self.root.glob("lib/*-linux-gnu"))
        command = [
            str(loader),
            "--inhibit-cache",
            "--library-path",
            ":".join(map(str, folders)),
            str(self.root / program),
            *arguments,
        ]
        subprocess.run(command, check=True, env=dict(environment or {}))


def fetched(scratch: Path, here: str, target: str, lock: debian_files.Lock | None) -> Tools:
    """Those for an image of the architecture `target`. `here`: this machine's."""
    root = scratch / "tools"
    root.mkdir()
    names = (*_PACKAGES, f"binutils-{_STRIP[target].replace('_', '-')}")
    packages = tuple(debian_files.unpack(each, root) for each in debian_files.fetched(names, scratch, here, lock))
    return Tools(root, packages, target)
