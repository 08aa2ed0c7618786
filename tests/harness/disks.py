"""Data folders that fill up or refuse writes."""

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness.agent import AgentProcess
from harness.lacking import lacking, lacking_program
from harness.looking import until


@contextlib.contextmanager
def small_disk(agent: AgentProcess, size: str) -> Iterator[None]:
    """The agent's data folder is a file system of that size (needs root). Ends the agent before it goes."""
    agent.data_dir.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "sojourn", str(agent.data_dir)], check=True)
    try:
        yield
    finally:
        if agent.process is not None:
            agent.stop()
        subprocess.run(["umount", "--lazy", str(agent.data_dir)], check=True)  # whoever looks into it is no failure


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """No byte is left on the folder's file system."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The database and its log refuse every write, as on a file system that has become read-only (needs root)."""
    files = [str(folder / name) for name in ("sojourn.db", "sojourn.db-wal")]
    if not _keeps_writes_out(folder):
        lacking("needs a file system with the immutable attribute, such as ext4")
    subprocess.run(["chattr", "+i", *files], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)


@contextlib.contextmanager
def journaled_disk(agent: AgentProcess) -> Iterator["JournaledDisk"]:
    """The agent's data folder is an ext4 file system of its own (needs root). Ends the agent before it goes."""
    image = agent.folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(32 * 2**20)
    lacking_program("mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", "-E", "root_owner=0:0", str(image)], check=True)
    agent.data_dir.mkdir(mode=0o700)
    found = JournaledDisk(image, agent.data_dir)
    found.mount()
    try:
        (agent.data_dir / "lost+found").rmdir()
        yield found
    finally:
        if agent.process is not None:
            agent.stop()
        subprocess.run(["umount", "--lazy", str(agent.data_dir)], check=True)  # whoever looks into it is no failure


class JournaledDisk:
    """An ext4 file system in a file."""

    def __init__(self, image: Path, folder: Path) -> None:
        self._image = image
        self._folder = folder

    def mount(self) -> None:
        done = subprocess.run(
            ["mount", "-o", "loop,errors=remount-ro", str(self._image), str(self._folder)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            lacking(f"needs loop devices: {done.stderr}")
        self._folder.chmod(0o700)

    def turn_read_only(self) -> None:
        """What ext4 does by itself where its device fails: also who has files open for writing cannot any more."""
        subprocess.run(["mount", "-o", "remount,abort", str(self._folder)], check=True)

    def mend(self) -> None:
        """Nobody uses it: check it, and have it back, for writing."""
        subprocess.run(["umount", str(self._folder)], check=True)
        # A namespace that was made meanwhile has the mount too, and with it the file system as it was, until it goes.
        until(lambda: not self._in_use(), "nobody has the disk mounted", seconds=60)
        checked = subprocess.run(["e2fsck", "-f", "-y", str(self._image)], capture_output=True, text=True)
        assert checked.returncode in {0, 1}, checked.stdout
        self.mount()

    def _in_use(self) -> str:
        """The loop devices on it, as far as they can be seen."""
        return subprocess.run(["losetup", "-j", str(self._image)], capture_output=True, text=True).stdout


def _keeps_writes_out(folder: Path) -> bool:
    """Whether a file there that is immutable is so for those who have it open, too: on a tmpfs it is not."""
    path = folder / "immutable"
    with path.open("wb", buffering=0) as file:
        made = subprocess.run(["chattr", "+i", str(path)], capture_output=True).returncode == 0
        try:
            file.write(b"x")
        except PermissionError:
            return True
        finally:
            if made:
                subprocess.run(["chattr", "-i", str(path)], check=True)
            path.unlink()
    return False


@contextlib.contextmanager
def failing(agent: AgentProcess) -> Iterator[None]:
    """The agent's writes to its database fail, because no file of its may grow."""
    wal = agent.data_dir / "sojourn.db-wal"
    before = resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (wal.stat().st_size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def taken_away(agent: AgentProcess) -> Iterator[None]:
    """The agent's writes to its database are refused, because its file was moved away; it is put back afterwards."""
    path = agent.data_dir / "sojourn.db"
    away = path.with_name("away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


@contextlib.contextmanager
def small_disk_again(agent: AgentProcess, size: str) -> Iterator[None]:
    """What the agent has kept so far is on a small file system now (needs root). The agent is stopped before, and runs within."""
    kept = agent.data_dir.with_name("kept")
    agent.data_dir.rename(kept)
    with small_disk(agent, size):
        subprocess.run(["cp", "-a", f"{kept}/.", str(agent.data_dir)], check=True)
        agent.start()
        yield
