"""What there is of a container to get into, for processes that want to pass for one of its own."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.engines import Container
from harness.inmates import Cgroups, Inmate, inmate


def entering(folders: Sequence[Path]) -> str:
    """Shell text that moves itself to these cgroups, and becomes the command that it is given."""
    return " && ".join(["true", *(f"echo 0 > {folder}/cgroup.procs" for folder in folders), 'exec "$@"'])


@dataclass(frozen=True, slots=True)
class Ground:
    """What there is of a container to get into."""

    container: Container
    folders: list[Path]  # of its cgroups
    kinds: dict[str, str]  # namespaces that are not this machine's, and the flags of nsenter(1) to join them

    @classmethod
    def of(cls, container: Container) -> "Ground":
        paths = {line.split(":", 2)[2] for line in Path(f"/proc/{container.pid}/cgroup").read_text().splitlines()}
        (path,) = {path for path in paths if container.id in path}
        folders = [root / path.lstrip("/") for root in Cgroups.every_root()]
        flags = {kind: f"--{kind}" for kind in ("cgroup", "ipc", "net", "pid", "user", "uts")} | {"mnt": "--mount"}
        own = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in flags}
        foreign = [kind for kind in flags if os.readlink(f"/proc/{container.pid}/ns/{kind}") != own[kind]]
        return cls(container, [each for each in folders if each.is_dir()], {kind: flags[kind] for kind in foreign})

    def joining(self, kinds: Sequence[str]) -> list[str]:
        """The flags of nsenter(1) for these namespaces of the container."""
        return [f"--target={self.container.pid}", *(self.kinds[kind] for kind in kinds)] if kinds else []

    @contextlib.contextmanager
    def disguised(self, folders: list[Path], kinds: list[str], *unshare: str) -> Iterator[Inmate]:
        """A process of this machine in these of the container's cgroups and namespaces, and in new ones by `unshare`."""
        with inmate(folders, *unshare, join=self.joining(kinds)) as process:
            yield process
