"""Private keys on disk: where they lie, and reading those that nobody else could have read or made."""

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
