"""The data folder: one agent, or one command that changes it, at a time; and as whose user a command works in it."""

import codecs
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sojourn.errors import CannotStart

DATABASE, KEYS, EPOCH = "sojourn.db", "keys", "epoch"
NODE = "node"  # the folder of what a node of a SPIRE server keeps
NODE_KEY = "node-key"  # of the key by which such a node joins, if it is bound to the node's name
UPSTREAM = "upstream"  # of what is kept of one that has its intermediate signed there
COPIES = "before"  # the folder of the databases that were kept before migrations


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Make the data folder ours alone, and have it locked meanwhile. Raise CannotStart.

    The lock is on the folder itself too: a file `lock` that somebody removes lets no second agent in.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.stat(folder)
    except OSError as error:
        raise CannotStart(
            f"cannot make the data folder {str(folder)!r}: {error.strerror}; choose another --data-dir"
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise CannotStart(f"the data folder {str(folder)!r} is not a folder of user {os.geteuid()}'s")
    if status.st_mode & 0o022:
        raise CannotStart(f"the data folder {str(folder)!r} can be written by others: chmod go-w it")
    path = folder / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"the data folder {str(folder)!r} cannot be written: {error.strerror}") from error
    try:
        itself = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(folder, itself, descriptor)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(itself)
    finally:
        os.close(descriptor)


def _lock(folder: Path, itself: int, file: int) -> None:
    """Lock a folder and the file in it. Raise CannotStart if another agent has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(itself, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(file, 32).decode("ascii", "replace").strip()
        raise CannotStart(
            f"another agent (process {holder or 'unknown'}) uses the data folder {str(folder)!r}: stop it, or choose"
            " another --data-dir"
        ) from error
    except OSError as error:
        raise CannotStart(f"the data folder {str(folder)!r} cannot be locked: {error.strerror}") from error


@contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """Within it root is the user whose data folder this is, so that what a command makes there is that user's.

    Anybody else stays who they are, as does root where the folder is its own or is not there.
    """
    try:
        owner = os.stat(folder)
    except OSError:
        yield
        return
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    codecs.lookup("ascii")  # what is imported later may lie where that user cannot read
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
