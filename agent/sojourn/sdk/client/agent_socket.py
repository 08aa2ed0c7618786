"""The agent's socket as it stands at its path, and whether to believe whoever has put it there.

In a folder that others may write another user can take the agent's place while it does not run, and tell services that
forged tokens are good. So the socket must be root's, this user's own, or the user's whose it was before, or the way
to it must be one on which nobody else can have put it there (see `pathowners`); and is
connected to by a handle on it, so that no other one can be put in its place in between.
"""

import errno
import os
import socket
import stat
from collections.abc import Callable

from sojourn.errors import Unreachable
from sojourn.files.path_owners import Exposed, named, overflow, walk
from sojourn.net.sockets import connect_within


class AgentSocket:
    """A path, and whose socket stood there."""

    def __init__(self, path: str, uid: Callable[[], int] = os.geteuid) -> None:
        self.path = path
        self.distrust = ""  # why the one that stands there now is not connected to
        self._uid = uid
        self._owner: int | None = None  # whose it was
        self._key: tuple[int, int] | None = None  # of the one that stood there last

    def look(self) -> int | None:
        """A handle on the socket at the path (O_PATH), if another one stands there than before: the caller's, to close.

        None: it is the same one still; or none, or one that is not to be believed, and then `distrust` says so.
        """
        self.distrust = ""
        try:
            status = os.stat(self.path)
            if (status.st_dev, status.st_ino) == self._key:
                return None
            handle = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return None
        status = os.fstat(handle)
        self.distrust = self._why_not(status)
        if self.distrust or not stat.S_ISSOCK(status.st_mode):
            os.close(handle)
            return None
        self._key = (status.st_dev, status.st_ino)
        if status.st_uid != overflow():  # which is many users'
            self._owner = status.st_uid
        return handle

    def _why_not(self, status: os.stat_result) -> str:
        """Why it is not to be believed; empty: it is."""
        if status.st_uid in {0, self._uid(), self._owner} or not stat.S_ISSOCK(status.st_mode):
            return ""
        whose = f"the socket {self.path!r} belongs to {named(status.st_uid)}"
        if self._owner is not None:
            return f"{whose}, and was user {self._owner}'s before: another user may have taken the agent's place"
        try:
            found = walk(self.path, {0, self._uid(), status.st_uid}, {0, self._uid()})
        except Exposed as error:
            return f"{whose}, {error}"
        except OSError as error:
            return f"{whose}, and the way there cannot be looked at: {error.strerror}"
        if (found.st_dev, found.st_ino) != (status.st_dev, status.st_ino):
            return f"{whose}, and another one stands there by now"
        return ""


def connect(connection: socket.socket, path: str, seconds: float) -> None:
    """Connect to the socket that stands at the path and was looked at, and to none that comes after it, as
    `connect_within`. Raise OSError, or Unreachable for one that is not to be believed.
    """
    found = AgentSocket(path)
    handle = found.look()
    if handle is None:
        if found.distrust:
            raise Unreachable(found.distrust)
        os.stat(path)  # which says why nothing can be connected to, if there is nothing
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    try:
        connect_within(connection, f"/proc/self/fd/{handle}", seconds)
    finally:
        os.close(handle)
