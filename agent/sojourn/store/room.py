"""No room on the disk: the error that says it, and by which other errors it is known. Without SQLAlchemy."""

import errno
import os
import sqlite3
from typing import Final

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# What SQLite calls SQLITE_FULL. Some of Python's own functions, such as `backup`, pass on the text and not the code.
_FULL: Final = "database or disk is full"


class NoRoom(OSError):
    """The disk has no room for what was to be written."""

    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))


def is_no_room(error: BaseException) -> bool:
    """Whether something failed since there is no room on the disk, or none within the user's quota.

    It is seen in an OSError, in SQLite's error, and in SQLAlchemy's around that.
    """
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, OSError):
        return cause.errno in _NO_ROOM
    if not isinstance(cause, sqlite3.Error):
        return False
    code = getattr(cause, "sqlite_errorcode", None)
    return str(cause) == _FULL if code is None else code & 0xFF == sqlite3.SQLITE_FULL
