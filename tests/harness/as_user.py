"""Become another user with the interpreter and all modules loaded, then run the `sojourn` command in this process.

Usage: as_user.py UID /path/to/sojourn ARGUMENTS…
"""

import ctypes
import importlib
import os
import pkgutil
import sys

_PR_SET_DUMPABLE = 4


def main() -> None:
    import concurrent.futures.thread
    import encodings.ascii
    import encodings.idna
    import sqlite3

    import alembic.command
    import alembic.config
    import cedarpy
    import sojourn.daemon
    import sojourn_attestors.unix
    import sqlalchemy.dialects.sqlite
    import uvloop
    from sojourn.cli.main import run

    for each in pkgutil.walk_packages(sojourn.__path__, "sojourn."):  # what is imported only where it is used, too
        if not each.name.endswith("__main__"):
            importlib.import_module(each.name)
    del concurrent, encodings, sqlite3, alembic, cedarpy, sqlalchemy, uvloop, sojourn, sojourn_attestors
    uid = int(sys.argv[1])
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # as if it had been started by that user
    sys.argv = sys.argv[2:]
    run()


if __name__ == "__main__":
    main()
