"""Private keys on disk: mode 0600, ours alone, written whole or not at all."""

import os
import stat
from pathlib import Path

from sojourn.errors import CannotStart


def make_folder(folder: Path) -> None:
    """Make the folder of the keys, 0700, if it is not there. Raise CannotStart if others could put keys into it."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.stat(folder)
    except OSError as error:
        raise CannotStart(f"cannot make the folder {str(folder)!r} for the keys: {error.strerror}") from error
    if status.st_uid != os.geteuid():
        raise CannotStart(f"the folder {str(folder)!r} belongs to user {status.st_uid}: it must be this agent's own")
    if status.st_mode & 0o022:
        raise CannotStart(f"the folder {str(folder)!r} can be written by others: chmod go-w it, and look at its keys")


def write_new(path: Path, content: bytes) -> None:
    """Write a file that no one else may read, atomically and durably; the folder must be there."""
    scratch = path.with_name(path.name + ".new")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path) -> bytes | None:
    """Return the content, or None if there is no such file. Raise CannotStart if others could have read or made it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotStart(f"key file {str(path)!r} cannot be read: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise CannotStart(f"key file {str(path)!r} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_uid != os.geteuid():
            raise CannotStart(f"key file {str(path)!r} belongs to user {status.st_uid}: it must be this agent's own")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise CannotStart(f"key file {str(path)!r} can be read by others: chmod 600 it, and consider a new root")
        return file.read()
