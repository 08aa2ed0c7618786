"""Binding a Unix socket without harm: nothing at the path is removed but our own stale socket."""

import contextlib
import errno
import os
import socket
import stat
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from sojourn.attestation.peer import kernel_pins_callers
from sojourn.errors import CannotStart
from sojourn.files.path_owners import Exposed, walk
from sojourn.limits import HELD_WAITING_MAX, LISTEN_BACKLOG, SOCKET_PATH_MAX_BYTES
from sojourn.net.held_sockets import HeldSocket
from sojourn.net.sockets import take_no_descriptors

log = structlog.get_logger()


def listen(path: Path, mode: int, held: HeldSocket | None, stack: AsyncExitStack) -> socket.socket:
    """The listening socket of `path`: the one that systemd holds there, or else one that `bind` makes.

    `stack` closes it, and removes only what was made here. Where the kernel knows callers by their pids alone, nobody
    who has waited in a held one is served: the pid may be another process's by now, for as long as no agent ran.
    """
    if held is None:
        made = bind(path, mode)
        stack.callback(unbind, path, made)
        return made
    take_no_descriptors(held.listener)
    stack.callback(held.listener.close)
    if not kernel_pins_callers() and (count := _turn_away(held.listener)):
        log.warning("callers_turned_away", socket=str(path), count=count)
    return held.listener


def _turn_away(listener: socket.socket) -> int:
    """Close all connections that wait, and return how many that were. They come in turn: what is left after so many
    was made since.
    """
    for count in range(HELD_WAITING_MAX):
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return count
        connection.close()
    return HELD_WAITING_MAX


def bind(path: Path, mode: int) -> socket.socket:
    """Return a listening, non-blocking socket at `path` with exactly `mode`. Raise CannotStart with what to do.

    The folder is made if it is missing (0755), and must be ours or root's and not writable by others. Whether clients
    of other users will believe a socket there is said in the log, if they will not. The socket is
    bound under another name with no permissions, given its mode, and only then moved to its path.
    """
    if len(os.fsencode(path)) > SOCKET_PATH_MAX_BYTES - len(".new"):
        raise CannotStart(f"socket path {str(path)!r} is longer than a Unix socket's may be: choose a shorter one")
    _check_folder(path.parent)
    _clear(path)
    scratch = path.with_name(path.name + ".new")
    _drop_scratch(scratch)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    take_no_descriptors(listener)
    try:
        before = os.umask(0o777)
        try:
            listener.bind(os.fspath(scratch))
        finally:
            os.umask(before)
        os.chmod(scratch, mode)
        listener.listen(LISTEN_BACKLOG)
        os.rename(scratch, path)
    except OSError as error:
        listener.close()
        _drop_scratch(scratch)
        raise CannotStart(f"cannot make the socket {str(path)!r}: {error.strerror}; choose another path") from error
    _check_way(path)
    return listener


def unbind(path: Path, listener: socket.socket) -> None:
    """Close a listener and remove its socket, unless somebody else answers at the path by now."""
    listener.close()
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.lstat(path).st_mode) and not _alive(path):
            os.unlink(path)


def _drop_scratch(scratch: Path) -> None:
    """Remove a socket that an earlier start left half made; anything else is left alone, and binding will say so."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.lstat(scratch).st_mode):
            os.unlink(scratch)


def _check_folder(folder: Path) -> None:
    try:
        if not folder.exists():
            os.makedirs(folder)
            os.chmod(folder, 0o755)  # noqa: S103  # callers of other users must get through, whatever our umask
        status = os.stat(folder)
    except OSError as error:
        raise CannotStart(f"cannot make the folder {str(folder)!r} for the socket: {error.strerror}") from error
    if status.st_uid not in {0, os.geteuid()}:
        raise CannotStart(f"the folder {str(folder)!r} belongs to user {status.st_uid}: sockets go into one of our own")
    if status.st_mode & 0o022:  # in a sticky one, too, another user could take our place when we have gone
        raise CannotStart(f"the folder {str(folder)!r} can be written by others: chmod go-w it, or choose another")


def _check_way(path: Path) -> None:
    """Log why clients of third users will not call here: root's agent they call anywhere, another user's not."""
    if (own := os.geteuid()) == 0:
        return
    try:
        walk(os.fspath(path), {0, own}, {0})
    except (Exposed, OSError) as error:
        log.warning("socket_not_believed", socket=str(path), by="clients of other users", reason=f"it is {error}")


def _clear(path: Path) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CannotStart(
            f"cannot look at {str(path)!r}: {error.strerror}; choose another path for the socket"
        ) from error
    if not stat.S_ISSOCK(status.st_mode):
        raise CannotStart(
            f"{str(path)!r} exists and is not a socket: it was left alone; move it or choose another path"
        )
    if status.st_uid != os.geteuid():
        raise CannotStart(f"the socket {str(path)!r} belongs to user {status.st_uid}: it was left alone")
    if _alive(path):
        raise CannotStart(
            f"something answers at {str(path)!r}: is another agent running? stop it, or choose another path for the"
            " socket"
        )
    os.unlink(path)


def _alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            return error.errno not in {errno.ECONNREFUSED, errno.ENOENT}
        return True
