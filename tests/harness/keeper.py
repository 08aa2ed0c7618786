"""Ends what failed and killed tests leave running.

For the agents of killed tests: one process beside each process of tests, told what was started.

Not PR_SET_PDEATHSIG: that ends an agent with the thread that started it, and not one that becomes another user.
"""

import atexit
import functools
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import Any


def keep(process: "subprocess.Popen[str]") -> None:
    """Have this child killed when our process ends, however it ends."""
    os.write(_input(), b"%d\n" % process.pid)


def wait_or_kill(process: "subprocess.Popen[Any]", seconds: float) -> None:
    """Return when a child that was asked to end has ended, which is killed after so long."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_with_failures() -> None:
    """Have a test that fails within `with subprocess.Popen(...)` kill that process, and not wait for its end for ever."""
    leave = subprocess.Popen.__exit__

    def kill_and_leave(
        process: "subprocess.Popen[str]",
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            process.kill()
        leave(process, kind, error, trace)

    subprocess.Popen.__exit__ = kill_and_leave  # type: ignore[method-assign]


@functools.cache
def _input() -> int:
    reads, writes = os.pipe()
    keeper = subprocess.Popen([sys.executable, "-IS", __file__], stdin=reads, start_new_session=True)
    os.close(reads)

    def end() -> None:
        os.close(writes)
        keeper.wait()

    atexit.register(end)
    return writes


def main() -> None:
    """Read process ids, a line each, to the end of the input; then kill those of them that still run."""
    running = set[int]()
    for line in sys.stdin:
        ended, _, _ = select.select(running, (), (), 0)
        for each in ended:
            os.close(each)
        running.difference_update(ended)
        with suppress(ProcessLookupError):
            running.add(os.pidfd_open(int(line)))
    for each in running:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(each, signal.SIGKILL)


if __name__ == "__main__":
    main()
