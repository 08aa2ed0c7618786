"""A private folder for as long as a block lasts: what lies in it is gone afterwards, also if this process is killed."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_SHELL: Final = "/bin/sh"
# It waits for a line, which says that all has been removed: if the pipe ends without one, its writer was killed.
_WAIT_IN_SHELL: Final = 'exec 3<&0; { read -r done || rm -rf -- "$@"; } <&3 3<&- >/dev/null 2>&1 &'
_WAIT_IN_PYTHON: Final = """import os, shutil, sys
if os.fork(): os._exit(0)
if not os.read(0, 1):
    for each in sys.argv[1:]:
        shutil.rmtree(each) if os.path.isdir(each) else os.path.lexists(each) and os.unlink(each)
"""


@contextmanager
def private_folder(prefix: str, also: Sequence[Path] = (), *, shared: bool = False) -> Iterator[Path]:
    """A new folder of mode 0700. `also`: files elsewhere that go with it. `shared`: of mode 0755, for other users.

    A small process of its own waits for the end of this one, to remove them if it is killed.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=tempfile.gettempdir() if shared else _parent()))
    if shared:
        folder.chmod(0o755)
    gone = [folder, *also]
    try:
        watch = _watch(gone)
    except BaseException:
        _remove(gone)
        raise
    try:
        yield folder
    finally:
        _remove(gone)
        with suppress(OSError):
            os.write(watch, b"\n")
        os.close(watch)


def _parent() -> str:
    """Where the system keeps what is gone with the user's session, if it has such a place."""
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    with suppress(OSError):
        found = os.lstat(named)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022:
            return named
    return tempfile.gettempdir()


def _watch(gone: Sequence[Path]) -> int:
    """Start the process that waits. Return what must stay open, and is closed by the kernel when this process ends."""
    reading, writing = os.pipe()
    names = [str(each.absolute()) for each in gone]
    command = [_SHELL, "-c", _WAIT_IN_SHELL, "sojourn-cleanup", *names]
    if not os.access(_SHELL, os.X_OK):
        command = [sys.executable, "-ISc", _WAIT_IN_PYTHON, *names]
    try:
        subprocess.run(  # noqa: S603  # a fixed program, and paths of our own as its arguments
            command,
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath},
            start_new_session=True,
            check=True,
        )
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    return writing


def _remove(gone: Sequence[Path]) -> None:
    for each in gone:
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each, ignore_errors=True)
        else:
            with suppress(OSError):
                each.unlink()
