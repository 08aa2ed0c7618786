"""What an installation is refused for: a machine that cannot run it, and code that somebody else could change."""

import os
import re
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sojourn.errors.oauth import CannotInstall
from sojourn.installing.layout import Layout
from sojourn.installing.programs import run
from sojourn.limits import SYSTEMD_OLDEST

_PYTHON_OLDEST: Final = (3, 11)


def check_machine(layout: Layout) -> None:
    """Raise CannotInstall unless we are root, on a machine that systemd runs, with a Python that is new enough."""
    if os.geteuid() != 0:
        raise CannotInstall("only root can install or remove the system's agent: run it again with sudo")
    if sys.version_info < _PYTHON_OLDEST:
        raise CannotInstall(f"Python 3.11 or newer is needed, and this is {sys.version.split()[0]}: run a newer one")
    if not (layout.top / "run/systemd/system").is_dir():
        raise CannotInstall(
            "systemd does not run this machine: have what does run `sojourn agent run`, or take the container"
            " (docs/install.md)"
        )
    version = systemd_version(run("systemctl", "--version"))
    if version < SYSTEMD_OLDEST:
        raise CannotInstall(
            f"systemd {version} is too old: {SYSTEMD_OLDEST} is needed, as the sandbox of the unit would be another"
        )
    if layout.packaged.exists():
        raise CannotInstall(
            "a package of Sojourn is installed: upgrade that one (apt install ./sojourn_….deb), or remove it first"
            " (apt remove sojourn)"
        )


def systemd_version(said: str) -> int:
    """The number in what `systemctl --version` says. Raise CannotInstall if there is none."""
    found = re.match(r"systemd (\d+)", said)
    if found is None:
        raise CannotInstall("systemctl does not say which systemd it is of: `systemctl --version` must name its number")
    return int(found[1])


def check_code(files: Iterable[Path]) -> None:
    """Raise CannotInstall unless root alone can change these files: whoever could would have the authority's keys."""
    seen: set[Path] = set()
    for file in files:
        real = Path(os.path.realpath(file))
        for path in (real, *real.parents):
            if path in seen:
                break
            seen.add(path)
            _check(path)


def _check(path: Path) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise CannotInstall(f"{path} cannot be looked at: {error.strerror}") from error
    check_status(path, status, shared=True)


def check_status(path: Path, status: os.stat_result, *, shared: bool) -> None:
    """Raise CannotInstall unless it is root's alone. `shared`: it may be like /tmp, as what is above may."""
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    why = ""
    if status.st_uid != 0:
        why = f"belongs to user {status.st_uid}"
    elif status.st_mode & stat.S_IWOTH and not (shared and sticky):
        why = "can be written by everybody"
    elif status.st_mode & stat.S_IWGRP and status.st_gid != 0:
        why = f"can be written by group {status.st_gid}"
    if why:
        raise CannotInstall(
            f"{path} {why}, and not by root alone: whoever changes this code has the agent's keys. Install from a"
            " bundle or an environment that is root's (docs/install.md)"
        )
