"""A Debian as one gets it, with systemd and Python and nothing of ours, booted: for what is installed on machines.

The files are made once, by debootstrap from this machine's own mirror, below the user's cache folder. What a test does
to a booted one is in memory, and gone with it.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from harness.lacking import lacking, lacking_program
from harness.nspawn import Machine, need_systemd

HAS = ("systemd", "systemd-sysv", "dbus", "python3", "init-system-helpers", "ca-certificates", "procps")
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
_ENVIRONMENT = (
    "env",
    "-i",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "TERM=dumb",
)
# What a slow mirror takes for some 80 MB.
_MAKE_SECONDS = 900.0


def root_of(suite: str) -> Path:
    """The files of that Debian. Skip the test if they are not here and cannot be made, but fail it in CI."""
    lacking_program("debootstrap")
    if os.geteuid() != 0:
        lacking("needs root, to make a Debian")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sojourn-test-roots"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = cache / suite
        if not made.is_dir():
            _make(suite, made)
    return made


def _make(suite: str, made: Path) -> None:
    work = made.with_name(f"{suite}.new")
    shutil.rmtree(work, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(HAS)}", suite, str(work), _mirror()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_MAKE_SECONDS)
    if done.returncode:
        lacking(f"needs a Debian {suite}, which debootstrap cannot make here: {done.stdout[-500:]}")
    for archive in (work / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    # As on a machine that has been set up: else the first boot asks for a name and a root password.
    (work / "etc/hostname").write_text("node\n")
    (work / "etc/machine-id").write_text("")
    work.rename(made)


def _mirror() -> str:
    asked = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    said = subprocess.run(
        ["apt-get", "indextargets", "--format", asked, "Created-By: Packages"], capture_output=True, text=True
    ).stdout
    for address, release, component in (line.split() for line in said.splitlines()):
        if component == "main" and "-" not in release and "/" not in release:
            return address
    return lacking("needs a Debian mirror in apt's sources")


class Debian(Machine):
    """One that is booted. Use as a context manager."""

    def sh(self, script: str, *, check: bool = True, seconds: float = 600) -> str:
        """What a script says that root types there, on both outputs. Raise AssertionError if it fails."""
        done = subprocess.run(
            self.entered(*_ENVIRONMENT, "sh", "-ec", script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        if check and done.returncode:
            raise AssertionError(f"{script}: {done.returncode}\n{done.stdout}\n{self._journal()}")
        return done.stdout

    def _journal(self) -> str:
        shown = [*_ENVIRONMENT, "journalctl", "--no-pager", "-n", "40"]
        return subprocess.run(self.entered(*shown), capture_output=True, text=True).stdout

    def started(self, script: str) -> "subprocess.Popen[str]":
        """A script that goes on there meanwhile; its output is to be read."""
        return subprocess.Popen(
            self.entered(*_ENVIRONMENT, "sh", "-ec", script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def give(self, *files: Path) -> None:
        """Copy files to /mnt/work in there."""
        for each in files:
            shutil.copy(each, self.folder / each.name)
            (self.folder / each.name).chmod(0o644)

    def __enter__(self) -> Self:
        super().__enter__()
        return self


@contextlib.contextmanager
def debian(suite: str) -> Iterator[Debian]:
    """One of that suite, booted, if this machine has what it takes."""
    need_systemd()
    with Debian(root=root_of(suite)) as machine:
        yield machine
