"""Processes in cgroups and namespaces of a test's own, whatever engines would name these."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.cgroups import removed
from harness.looking import until

_HIERARCHIES = ("cgroup2", "name=systemd", "pids")  # two of v1, as real containers are in several


class Cgroups:
    """The hierarchies of cgroups that this machine has of v2, systemd's own and pids; as a context manager, those made
    in them are removed afterwards, once their processes have ended (needs root)."""

    def __init__(self) -> None:
        self.roots: dict[str, Path] = {}
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, mount, kind, options, *_ = line.split()
            for name in _HIERARCHIES:
                if kind == name or (kind == "cgroup" and name in options.split(",")):
                    self.roots.setdefault(name, Path(mount))
        self._made: list[Path] = []

    def __enter__(self) -> "Cgroups":
        return self

    def __exit__(self, *_: object) -> None:
        for folder in reversed(self._made):
            until(lambda folder=folder: removed(folder), f"{folder} is empty")

    def need(self, *hierarchies: str) -> None:
        """Skip the test if this machine has not all of these: many have cgroup v2 alone."""
        missing = [name for name in hierarchies if name not in self.roots]
        if missing:
            pytest.skip(f"needs a machine that has the hierarchies of cgroups {', '.join(missing)}")

    def adopt(self, folder: Path, path: str) -> None:
        """Remove in the end what others made below a folder, at this path."""
        for step in path.split("/"):
            folder /= step
            self._made.append(folder)

    @staticmethod
    def every_root() -> list[Path]:
        """The top of each hierarchy of cgroups that this machine has."""
        lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        return [Path(mount) for _, mount, kind, *_ in lines if kind in {"cgroup", "cgroup2"}]

    def make(self, path: str, *hierarchies: str) -> list[Path]:
        """A cgroup at this path in each hierarchy, or in these only; their folders. Those above it are made too."""
        self.need(*hierarchies)
        folders = []
        for name in hierarchies or tuple(self.roots):
            folder = self.roots[name]
            for step in path.strip("/").split("/"):
                folder /= step
                if not folder.exists():
                    folder.mkdir()
                    self._made.append(folder)
            folders.append(folder)
        return folders


def subject_of(pid: int) -> SimpleNamespace:
    """A process as an attestor sees it."""
    text = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "surrogateescape")
    uid = os.stat(f"/proc/{pid}").st_uid
    return SimpleNamespace(pid=pid, uid=uid, who=uid, cgroup=text)


class Inmate:
    """A process that sleeps. `pid` is as this machine knows it."""

    def __init__(self, process: "subprocess.Popen[bytes]", pid: int) -> None:
        self.process = process
        self.pid = pid

    @property
    def subject(self) -> SimpleNamespace:
        """The process as an attestor sees it."""
        return subject_of(self.pid)

    def end(self) -> None:
        """Kill it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait()


@contextlib.contextmanager
def inmate(
    folders: Sequence[Path] = (),
    *unshare: str,
    uid: int | None = None,
    prepare: str = "true",
    join: Sequence[str] = (),
) -> Iterator[Inmate]:
    """A process in these cgroups, and in new namespaces by these flags of unshare(1), such as `--mount`.

    `prepare`: shell text that it runs first, in its namespaces. `uid`: who it is, then before the namespaces. `join`:
    flags of nsenter(1), to join namespaces first.
    """
    enter = " && ".join(["true", *(f"echo 0 > '{folder}/cgroup.procs'" for folder in folders)])
    user = [] if uid is None else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    forks = any(flag in {"--pid", "--time"} for flag in unshare)
    flags = [*unshare, *(["--fork", "--kill-child"] if forks else [])]
    inner = ["sh", "-c", f"{prepare} && echo ready && exec sleep 600"]
    joined = ["nsenter", *join, "--"] if join else []
    argv = [
        "sh",
        "-c",
        f'{enter} && exec "$@"',
        "sh",
        *joined,
        *user,
        *(["unshare", *flags, "--"] if flags else []),
        *inner,
    ]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line == b"ready\n", f"the process did not start: {argv}"
        pid = until(lambda: _sleeper(process.pid), "it sleeps")
        yield Inmate(process, pid)
    finally:
        Inmate(process, process.pid).end()
        process.stdout.close()


def _sleeper(pid: int) -> int:
    """The process that sleeps: this one, or the one below it."""
    if Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00600\x00":
        return pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if found := _sleeper(int(child)):
            return found
    return 0
