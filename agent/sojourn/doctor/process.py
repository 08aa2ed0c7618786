"""Checks of the agent's process: what it may do, how many files it may open, and whose its code is."""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import sojourn
from sojourn.doctor.findings import Finding, fail, ok, unknown, warn
from sojourn.doctor.scene import ASK_AS_ROOT, SILENT, START, Scene, lines_of
from sojourn.files.path_owners import Exposed, named, walk
from sojourn.limits import DESCRIPTORS_RESERVED

_NEEDED: Final = {
    "CAP_SYS_PTRACE": (19, "program, namespaces and containers of other users' processes are not seen"),
    "CAP_DAC_READ_SEARCH": (2, "programs that only their owner may read are not hashed"),
}
_DESCRIPTORS_FEW: Final = DESCRIPTORS_RESERVED + 1_024
_FULL_SHARE, _NEARLY_FULL_SHARE = 0.95, 0.8


def capabilities(scene: Scene) -> Finding:
    """Whether the agent may look at the processes of all users."""
    held = scene.process_status("CapEff")
    if held is None:
        return _unseen(scene)
    missing = {name: lost for name, (bit, lost) in _NEEDED.items() if not int(held, 16) >> bit & 1}
    limits = [f"{each.what}: {each.reason}" for each in scene.status.limitations] if scene.status is not None else []
    if not missing and not limits:
        return ok(f"user {scene.uid} with {' and '.join(_NEEDED)}")
    lost = [f"without {name} {what}" for name, what in missing.items()] + limits
    return warn(
        f"the agent runs as user {scene.uid}: {'; '.join(lost)}",
        "in its unit:"
        f" AmbientCapabilities={' '.join(_NEEDED)}; in a container: --cap-add, and user 0 under Docker and"
        " Kubernetes; or run it as root",
    )


def _unseen(scene: Scene) -> Finding:
    if scene.status is None:
        return unknown(SILENT, START)
    return unknown("the agent's process is not seen: it runs in another PID namespace", "run this beside it")


def descriptors(scene: Scene) -> Finding:
    """Whether the agent may open as many files as its callers need: one a connection, two a task."""
    if scene.process is None:
        return _unseen(scene)
    most = _open_files(scene.process)
    if most is None:
        return unknown("the limits of the agent's process cannot be read", ASK_AS_ROOT)
    if most < _DESCRIPTORS_FEW:
        return warn(
            f"the agent may open {most} files: few connections and tasks",
            "LimitNOFILE=65536 in its unit, `ulimit -n` before it, or --ulimit nofile=65536 for its container",
        )
    try:
        used = len(os.listdir(scene.process / "fd"))
    except OSError:
        return unknown(f"the agent may open {most} files; how many it has open cannot be seen", ASK_AS_ROOT)
    said = f"{used} of {most} files are open"
    if used > most * _NEARLY_FULL_SHARE:
        make = fail if used > most * _FULL_SHARE else warn
        return make(said, "raise LimitNOFILE, or see with `sojourn status --all` who has the streams")
    return ok(said)


def _open_files(process: Path) -> int | None:
    for line in lines_of(process / "limits"):
        if line.startswith("Max open files"):
            found = line.split()[3]
            return int(found) if found.isdecimal() else sys.maxsize
    return None


def code(scene: Scene) -> Finding:
    """Whether nobody but root and the agent's user can change what the agent runs."""
    trusted = {0, scene.uid}
    if scene.status is not None and scene.process is None:
        return unknown("the agent runs in another PID namespace: its programs are not seen", ASK_AS_ROOT)
    programs = list(_programs(scene))
    for path in programs:
        try:
            walk(str(path), trusted, trusted)
        except Exposed as error:
            return fail(
                f"{path} lies {error}",
                "install as root: /opt/sojourn or a package; who can change the agent's code has its keys",
            )
        except OSError as error:
            return unknown(f"{path}: {error.strerror}", ASK_AS_ROOT)
    for path in programs:
        for each in _files(path):
            status = each.lstat()
            if not stat.S_ISLNK(status.st_mode) and (status.st_uid not in trusted or status.st_mode & 0o022):
                whose = f"is {named(status.st_uid)}'s" if status.st_uid not in trusted else "can be written by others"
                return fail(
                    f"{each} {whose}",
                    "chown it to root, and chmod go-w: who can change the agent's code has its keys",
                )
    return ok(f"{' and '.join(map(str, programs))} can be changed by root" + _or_user(scene.uid))


def _or_user(uid: int) -> str:
    return " alone" if uid == 0 else f" and user {uid} alone"


def _programs(scene: Scene) -> Iterator[Path]:
    """The interpreter that runs the agent, or this one, and the package."""
    interpreter = Path(sys.executable)
    if scene.process is not None:
        try:
            interpreter = Path(os.readlink(scene.process / "exe"))
        except OSError:
            interpreter = Path(sys.executable)
    yield interpreter
    yield Path(sojourn.__file__).parent


def _files(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir():
        yield from path.rglob("*")
