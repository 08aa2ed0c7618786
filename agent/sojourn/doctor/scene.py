"""What the checks look at: the agent's own account if it answers, its process, its configuration, and the machine."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sojourn.config import service_unit
from sojourn.config.model import Config

_LOCK_BYTES: Final = 32  # of the number of a process, with room to spare
ASK_AS_ROOT: Final = "run `sojourn doctor` as root"
SILENT: Final = "the agent does not answer"
START: Final = "start the agent, and run this once more"


@dataclass(frozen=True)
class Scene:
    """`status` is the answer of GetStatus, None if there is none, for the reason `silent`. `config` is None if it
    cannot be used, for the reason `config_fault`. `proc` and `sys` are where the kernel shows itself.
    """

    status: Any | None
    silent: str
    config: Config | None
    config_fault: str = ""
    config_file: Path | None = None
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    unit_folders: Sequence[Path] = service_unit.FOLDERS

    @property
    def data_dir(self) -> Path | None:
        """That of the running agent, or else the one that is configured."""
        if self.status is not None:
            return Path(self.status.data_dir)
        return None if self.config is None else self.config.data_dir

    @property
    def is_server(self) -> bool:
        """Whether this is a server, which has no public socket, and a listener for its nodes."""
        if self.status is not None:
            return not self.status.socket
        return self.config is not None and self.config.server is not None

    @property
    def public_socket(self) -> Path | None:
        """Where the running agent's stands, or else where it is configured to."""
        if self.status is not None:
            return Path(self.status.socket)
        return None if self.config is None else self.config.socket

    @property
    def admin_socket(self) -> Path | None:
        if self.status is not None:
            return Path(self.status.admin_socket)
        return None if self.config is None else self.config.admin_socket

    @property
    def has_unit(self) -> bool:
        """Whether systemd starts the agent of this machine."""
        return service_unit.is_installed(self.unit_folders)

    @property
    def process(self) -> Path | None:
        """The folder of the agent's process, None if it does not run, or has another number here than where it is.

        One that does not answer is found by the lock of its data folder.
        """
        number = str(self.status.pid) if self.status is not None else self._locked_by()
        if not (number.isascii() and number.isdecimal()):
            return None
        folder = self.proc / number
        words = (_read(folder / "cmdline") or "").split("\0")
        return folder if {"agent", "server"} & {*words} and "run" in words else None

    @property
    def uid(self) -> int:
        """Whose the agent is: the user of its process, of its data folder, or else of whoever asks."""
        if self.process is not None and (found := self.process_status("Uid")) is not None:
            return int(found.split()[1])
        try:
            return (self.data_dir or Path()).stat().st_uid
        except OSError:
            return os.geteuid()

    def _locked_by(self) -> str:
        return "" if self.data_dir is None else _start_of(self.data_dir / "lock").strip()

    def process_status(self, field: str) -> str | None:
        """A field of /proc/PID/status, None if that cannot be read."""
        return None if self.process is None else field_of(self.process / "status", field)

    def read(self, path: Path) -> str | None:
        """The text of a file of the kernel's, None if there is none or it cannot be read."""
        return _read(path)


def field_of(path: Path, field: str) -> str | None:
    """The value in a line `FIELD: VALUE`, None if there is none."""
    for line in lines_of(path):
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return None


def lines_of(path: Path) -> Iterator[str]:
    yield from (_read(path) or "").splitlines()


def _start_of(path: Path) -> str:
    """The first bytes of a small file of another user's, who may have put anything in its place: "" of all else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, _LOCK_BYTES).decode("ascii", "replace") if regular else ""
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return None
