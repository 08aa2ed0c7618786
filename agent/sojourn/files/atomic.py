"""Writing files whole or not at all: a reader has the old content or the new one, after a crash too."""

import os
from pathlib import Path

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write(path: Path, content: bytes, mode: int = 0o600, *, within: int | None = None) -> None:
    """Put a file in the place of one that may be there, durably and of this mode, whatever the umask.

    The folder must be there; `within` is a descriptor of the one that a relative path begins at. Raise OSError. However
    it ends, also by Ctrl-C, nothing but the one whole file is left.
    """
    scratch = scratch_of(path)
    _remove(scratch, within)  # a crash may have left it
    descriptor = os.open(scratch, _FLAGS, mode, dir_fd=within)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(scratch, path, src_dir_fd=within, dst_dir_fd=within)
    except BaseException:
        _remove(scratch, within)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=within)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def scratch_of(path: Path) -> Path:
    """What a file is written as before it has its name."""
    return path.with_name(f".{path.name}.new")


def _remove(path: Path, within: int | None) -> None:
    try:
        os.unlink(path, dir_fd=within)
    except FileNotFoundError:  # or it has its name by now
        return
