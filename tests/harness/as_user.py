"""Become another user with the interpreter and all modules loaded, then run the `sojourn` command in this process.

Usage: as_user.py UID /path/to/sojourn ARGUMENTS…
"""

import ctypes
import importlib
import os
import pkgutil
import sys
from pathlib import Path

_PR_SET_DUMPABLE = 4


class _Unreadable:
    """A finder that finds nothing of the standard library.

    An interpreter may lie where other users cannot read it: what is imported that late fails there, so it does here.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{name} was not imported before this process became another user", name=name)


def _reach() -> None:
    """Have this checkout's files be read by way of a descriptor: folders above it, such as /root, may be closed to the user."""
    checkout = str(Path(__file__).resolve().parents[2])
    opened = os.open(checkout, os.O_PATH | os.O_DIRECTORY)
    sys.path[:] = [
        f"/proc/self/fd/{opened}{each.removeprefix(checkout)}" if each.startswith(f"{checkout}/") else each
        for each in sys.path
    ]


def _imported(name: str) -> None:
    """Import a module, unless it is for an extra that is not installed."""
    from sojourn.errors import FailedPrecondition

    try:
        importlib.import_module(name)
    except FailedPrecondition as error:
        if not isinstance(error.__cause__, ModuleNotFoundError):
            raise


def main() -> None:
    _reach()
    import concurrent.futures.thread
    import encodings.ascii
    import encodings.idna
    import sqlite3

    import alembic.command
    import alembic.config
    import cedarpy
    import sojourn.agent.run
    import sojourn_attestors.unix
    import sqlalchemy.dialects.sqlite
    import uvloop
    from sojourn.cli.main import run

    for each in pkgutil.walk_packages(sojourn.__path__, "sojourn."):  # what is imported only where it is used, too
        if not each.name.endswith("__main__"):
            _imported(each.name)
    del concurrent, encodings, sqlite3, alembic, cedarpy, sqlalchemy, uvloop, sojourn, sojourn_attestors
    uid = int(sys.argv[1])
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # as if it had been started by that user
    sys.argv = sys.argv[2:]
    sys.meta_path.insert(0, _Unreadable())
    run()


if __name__ == "__main__":
    main()
