"""Listening sockets that systemd holds and has given to this process: sd_listen_fds(3).

They outlive the agent: who connects while none runs waits in the kernel's line. They are nobody's to remove but
systemd's.
"""

import os
import socket
import stat
from collections.abc import MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sojourn.errors import CannotStart

FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START
_LISTENING: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_EVERYBODY: Final = 0o222
_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class HeldSocket:
    """A socket that listens at `path`."""

    path: Path
    listener: socket.socket


def of_environment(environment: MutableMapping[str, str], first: int = FIRST_DESCRIPTOR) -> dict[str, HeldSocket]:
    """The sockets by name: `agent`, which every user must be able to use, and `admin`, which none but its owner may.

    Their variables are taken out, and no child inherits them. Raise CannotStart for any that the agent cannot use as
    what it is given as. Empty: systemd has given us none.
    """
    pid, count = environment.get("LISTEN_PID", ""), environment.get("LISTEN_FDS", "")
    names = environment.get("LISTEN_FDNAMES", "")
    for name in _LISTENING:
        environment.pop(name, None)
    if pid != str(os.getpid()):  # those of whoever has started us
        return {}
    if not count.isascii() or not count.isdecimal():
        raise CannotStart(f"LISTEN_FDS is {count[:100]!r}: it is a number")
    named = names.split(":") if names else []
    if len(named) != int(count):
        raise CannotStart(f"LISTEN_FDNAMES has {len(named)} names for {count} sockets: there is one for each")
    held: dict[str, HeldSocket] = {}
    with ExitStack() as refused:
        for descriptor, name in enumerate(named, first):
            if name in held:
                raise CannotStart(f"systemd holds two sockets named {name!r}: one unit alone may have that name")
            held[name] = _take(descriptor, name, refused)
        refused.pop_all()
    return held


def _take(descriptor: int, name: str, refused: ExitStack) -> HeldSocket:
    """One of the sockets. `refused` closes it."""
    if name not in {"agent", "admin"}:
        raise CannotStart(
            f"systemd holds a socket named {name[:100]!r}, which is not for the agent: FileDescriptorName= of its unit"
            " is agent or admin"
        )
    what = f"the socket that systemd holds as {name!r}"
    try:
        is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        os.set_inheritable(descriptor, False)
    except OSError as error:
        raise CannotStart(f"{what} is not there: {error.strerror}") from error
    if not is_socket:
        raise CannotStart(f"{what} is none: its unit needs a line ListenStream= with a path")
    listener = refused.enter_context(socket.socket(fileno=descriptor))
    place = listener.getsockname() if listener.family == socket.AF_UNIX else b""
    if listener.family != socket.AF_UNIX or not place or isinstance(place, bytes):
        raise CannotStart(f"{what} has no path: callers are told by Unix sockets in files alone, ListenStream=/…")
    if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise CannotStart(f"{what} is not one that takes connections: its unit needs ListenStream=, and Accept=no")
    _check_file(what, name, Path(place))
    listener.setblocking(False)
    return HeldSocket(Path(place), listener)


def _check_file(what: str, name: str, path: Path) -> None:
    try:
        status = os.lstat(path)
    except OSError as error:
        raise CannotStart(
            f"{what} is at {str(path)!r}, where nobody finds it ({error.strerror}): systemctl restart"
            f" sojourn-{name}.socket"
        ) from error
    if not stat.S_ISSOCK(status.st_mode):
        raise CannotStart(f"{what} is at {str(path)!r}, where something else stands: remove that, and restart its unit")
    if status.st_uid not in {0, os.geteuid()}:
        raise CannotStart(
            f"{what} belongs to user {status.st_uid}: it must be root's or the agent's, by SocketUser= of its unit"
        )
    mode = stat.S_IMODE(status.st_mode)
    if name == "agent" and mode & _EVERYBODY != _EVERYBODY:
        raise CannotStart(f"{what} has mode {mode:04o}, so that not every user may ask: SocketMode=0777 in its unit")
    if name == "admin" and mode & _OTHERS:
        raise CannotStart(f"{what} has mode {mode:04o}, so that others may ask: SocketMode=0600 in its unit")
