"""Whether systemd runs the agent of this machine, and what starts it and tells of it then."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sojourn.config.paths import SYSTEM_RUN

UNIT: Final = "sojourn.service"
# systemd.unit(5): where units of the system lie; those of packages and of `sojourn agent install` are among them.
FOLDERS: Final = tuple(
    Path(each)
    for each in ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system",
                 "/usr/lib/systemd/system", "/lib/systemd/system")
)  # fmt: skip
START: Final = "`systemctl start sojourn`, as root; `journalctl -u sojourn` says why it does not run"


def is_installed(folders: Iterable[Path] = FOLDERS) -> bool:
    """Whether there is a unit of the agent."""
    return any(os.path.lexists(folder / UNIT) for folder in folders)


def is_of_unit(socket: str, folders: Iterable[Path] = FOLDERS) -> bool:
    """Whether the agent that a socket belongs to is the one that the unit starts."""
    return Path(socket).parent == SYSTEM_RUN and is_installed(folders)
