"""Become another user with the interpreter and all modules loaded, then run the `sojourn` command in this process.

Usage: as_user.py UID /path/to/sojourn ARGUMENTS…
"""

import ctypes
import os
import signal
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

    def reached(paths: list[str]) -> list[str]:
        return [
            f"/proc/self/fd/{opened}{each.removeprefix(checkout)}" if each.startswith(f"{checkout}/") else each
            for each in paths
        ]

    sys.path[:] = reached(sys.path)
    for module in list(sys.modules.values()):  # in a fork: packages that import more of themselves later
        if isinstance(paths := getattr(module, "__path__", None), list):
            paths[:] = reached(paths)


class _Forked:
    """Stands for the Popen of a process that reads /proc: this user cannot start the interpreter, so it is forked."""

    def __init__(self, channel: int) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            os.closerange(0, channel)
            os.closerange(channel + 1, os.sysconf("SC_OPEN_MAX"))
            from sojourn.attestation.proc_read import main

            main(channel)
            os._exit(0)

    def poll(self) -> int | None:
        try:
            return None if os.waitpid(self.pid, os.WNOHANG) == (0, 0) else 0
        except ChildProcessError:
            return 0

    def wait(self) -> int:
        os.waitpid(self.pid, 0)
        return 0

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _read_by_fork() -> None:
    """Have the reader's process now, while there are no other threads."""
    from sojourn.attestation import proc_reader

    proc_reader._start = _Forked  # type: ignore[assignment]
    proc_reader.reader.stat(os.getpid())


def main() -> None:
    _reach()
    sys.path[0] = os.path.dirname(sys.path[0])  # it was the folder of this file
    import alembic.command
    import alembic.config
    import cedarpy
    import sqlalchemy.dialects.sqlite

    from harness.wholeprogram import load

    del sys.path[0]
    load()
    from sojourn.cli.main import run

    del alembic, cedarpy, sqlalchemy
    uid = int(sys.argv[1])
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # as if it had been started by that user
    _read_by_fork()
    sys.argv = sys.argv[2:]
    sys.meta_path.insert(0, _Unreadable())
    run()


if __name__ == "__main__":
    main()
