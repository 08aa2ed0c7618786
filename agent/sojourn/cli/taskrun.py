"""Running a command inside a task."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from sojourn.cli.output import REFUSED
from sojourn.errors import InvalidInput

_PR_SET_CHILD_SUBREAPER = 36
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
NOT_FOUND, NOT_EXECUTABLE = 127, 126


async def run_command(client: Any, command: Sequence[str], grace_seconds: float, **begin: Any) -> int:
    """Begin a task, run `command` in it, and return the command's exit status (128 + N if signal N ended it).

    If the task ends first the command gets SIGTERM, and after `grace_seconds` SIGKILL; the status is then the
    command's all the same, or 1 if it made nothing of it.
    """
    # Orphans of the command become our children, so that every descendant stays one of the task's holder.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    async with client.task(session=True, **begin) as task:
        environment = {
            **os.environ,
            "SOJOURN_TASK_ID": task.id,
            "SOJOURN_TASK_TYPE": task.type,
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{client.socket}",
        }
        try:
            process = await asyncio.create_subprocess_exec(*command, env=environment)
        except FileNotFoundError:
            await task.complete(failed=True)
            raise InvalidInput(f"command {command[0]!r} was not found") from None
        except OSError as error:
            await task.complete(failed=True)
            raise InvalidInput(f"command {command[0]!r} cannot be run: {error.strerror}") from None
        with _signals(process):
            stopped = await _until_over(process, task, grace_seconds)
        status = process.returncode or 0
        await task.complete(failed=status != 0)
    if status < 0:
        status = 128 - status
    return REFUSED if stopped and status == 0 else status


async def _until_over(process: asyncio.subprocess.Process, task: Any, grace_seconds: float) -> bool:
    """Return when the command has ended; say whether the task ended first."""
    exited = asyncio.ensure_future(process.wait())
    ended = asyncio.ensure_future(task.wait_ended())
    try:
        await asyncio.wait({exited, ended}, return_when=asyncio.FIRST_COMPLETED)
        if exited.done():
            return False
        print(f"sojourn: the task has ended ({task.state}: {task.reason}); stopping the command", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait({exited}, timeout=grace_seconds)
        if not exited.done():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await exited
        return True
    finally:
        exited.cancel()
        ended.cancel()


@contextlib.contextmanager
def _signals(process: asyncio.subprocess.Process):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Pass signals on to the command, and collect orphans that were left to us."""
    loop = asyncio.get_running_loop()

    def forward(number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    for number in _FORWARDED:
        loop.add_signal_handler(number, forward, number)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the terminal sends it to the command as well
    loop.add_signal_handler(signal.SIGCHLD, _collect, process.pid)
    try:
        yield
    finally:
        for number in (*_FORWARDED, signal.SIGINT, signal.SIGCHLD):
            loop.remove_signal_handler(number)


def _collect(command_pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None or found.si_pid == command_pid:
                return  # asyncio waits for the command itself
            os.waitpid(found.si_pid, 0)
