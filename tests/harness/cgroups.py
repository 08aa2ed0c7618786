"""Real cgroups that a test moves processes into, and an attestor, installed as anyone's own would be, that sees them."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from harness.agent import AgentProcess
from harness.lacking import lacking
from harness.looking import until

_PLUGIN = '''"""Proves in which cgroups of tests a process is; cannot tell while the file `switch` is there."""

import os

from sojourn.attestation.attestor import Answer


class CgroupAttestor:
    def __init__(self, settings, pool):
        self._switch = settings["switch"]

    async def attest(self, subject):
        if os.path.exists(self._switch):
            raise RuntimeError("switched off")
        with open(f"/proc/{subject.pid}/cgroup") as file:
            names = {line.rstrip().rpartition("/")[2] for line in file}
        return Answer(frozenset(f"name:{name}" for name in names if name.startswith("sojourn-test-")))
'''


class CgroupAgent(AgentProcess):
    """An agent with the attestors `unix` and `cgroup`. While the file `switch` is there the latter cannot tell."""

    def __init__(self) -> None:
        super().__init__()
        self.switch = self.folder / "switch"
        self.config = self.folder / "agent.toml"
        self.config.write_text(f'[attestors.unix]\n[attestors.cgroup]\nswitch = "{self.switch}"\n')
        plugins = self.folder / "plugins"
        about = plugins / "cgroup_attestor-1.0.dist-info"
        about.mkdir(parents=True)
        (plugins / "cgroup_attestor.py").write_text(_PLUGIN)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cgroup-attestor\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[sojourn.attestors]\ncgroup = cgroup_attestor:CgroupAttestor\n")
        also = os.environ.get("PYTHONPATH")
        self.extra_environment = {"PYTHONPATH": os.pathsep.join(filter(None, [str(plugins), also]))}


class Cgroup:
    """A cgroup of this test's own, in whichever hierarchy takes one (needs root)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where it is in the file system."""
        return self._folder

    @property
    def selector(self) -> str:
        return f"cgroup:name:{self._folder.name}"

    def take(self, pid: int) -> None:
        """Move a process here."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def leave(self, pid: int) -> None:
        """Move a process out of here, to the cgroup above."""
        (self._folder.parent / "cgroup.procs").write_text(str(pid))


@contextlib.contextmanager
def cgroup(name: str) -> Iterator[Cgroup]:
    """A new cgroup, removed afterwards: whoever is in it has to be gone by then."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        folder = Path(mount, f"sojourn-test-{name}-{os.getpid()}")
        # not cpuset, which takes nobody before it is set up
        if kind not in {"cgroup", "cgroup2"} or "cpuset" in mount:
            continue
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            yield Cgroup(folder)
        finally:
            until(lambda folder=folder: removed(folder), "the cgroup is empty")
        return
    lacking("needs a hierarchy of cgroups that can be written")


def removed(folder: Path) -> bool:
    """Whether it could be removed: the kernel counts a process that has ended for a moment longer."""
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
