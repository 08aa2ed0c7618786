"""Running a command inside a task."""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from sojourn.cli.output import REFUSED

_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
NOT_FOUND, NOT_EXECUTABLE = 127, 126
UNUSED = (
    "sojourn: no request of the command came through its proxy. A client that does not look for HTTPS_PROXY arrives"
    " without a token: fetch of Node looks for it from 22.21 and 24.5 on; others take it as an option"
)


@dataclass(frozen=True, slots=True)
class Proxied:
    """That the command's requests go through an egress proxy, as `task.proxy` has it."""

    ca_file: str | None
    passes: Sequence[str] = ()
    user: str | None = None
    isolate: bool = False


@dataclass(frozen=True, slots=True)
class Clouds:
    """That the command finds endpoints for the SDKs of clouds. `resources`: which, if there are several of a kind."""

    resources: Sequence[str] = ()
    vault_token_file: str | None = None
    show: bool = False


async def run_command(
    client: Any,
    command: Sequence[str],
    grace_seconds: float,
    begun: Any,
    proxied: Proxied | None = None,
    clouds: Clouds | None = None,
) -> int:
    """Begin a task by entering `begun`, run `command` in it, and return the command's exit status.

    `proxied`: with an egress proxy of the task in its environment. `clouds`: with endpoints for its outside resources.

    That is 128 + N if signal N ended it, 127 if there is no such command, 126 if it cannot be run. If the task ends
    first the command gets SIGTERM, and after `grace_seconds` SIGKILL; the status is the command's all the same, or 1
    if that was 0.
    """
    # Orphans of the command become our children, so that every descendant stays one of the task's holder.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    async with begun as task, contextlib.AsyncExitStack() as stack:
        start = await _prepare(client, task, stack, command, proxied, clouds)
        with _Signals() as signals:
            try:
                # No preexec_fn: that would fork with gRPC's threads running, which can crash the child.
                process = await asyncio.create_subprocess_exec(
                    *start.command, env=start.environment, pass_fds=start.inherited
                )
            except OSError as error:
                await task.complete(failed=True)
                missing = isinstance(error, FileNotFoundError)
                reason = "was not found" if missing else f"cannot be run: {error.strerror}"
                print(f"error: command {start.command[0]!r} {reason} [usage]", file=sys.stderr)
                return NOT_FOUND if missing else NOT_EXECUTABLE
            signals.begin(process)
            stopped = await _until_over(process, task, grace_seconds)
        status = process.returncode or 0
        if start.egress is not None and not start.egress.used and status not in {NOT_FOUND, NOT_EXECUTABLE}:
            print(UNUSED, file=sys.stderr)
        await task.complete(failed=status != 0)
    if status < 0:
        status = 128 - status
    return REFUSED if stopped and status == 0 else status


@dataclass(frozen=True, slots=True)
class _Start:
    """What is run, and what it gets."""

    command: Sequence[str]
    environment: dict[str, str]
    inherited: tuple[int, ...] = ()  # descriptors
    egress: Any = None


async def _prepare(
    client: Any,
    task: Any,
    stack: contextlib.AsyncExitStack,
    command: Sequence[str],
    proxied: Proxied | None,
    clouds: Clouds | None,
) -> _Start:
    environment = {
        **os.environ,
        "SOJOURN_TASK_ID": task.id,
        "SOJOURN_TASK_TYPE": task.type,
        "SPIFFE_ENDPOINT_SOCKET": f"unix://{client.socket}",
    }
    if proxied is not None:
        _guard_memory(client.socket)
        egress = await stack.enter_async_context(task.proxy(**asdict(proxied)))
        return _Start(egress.command(command), egress.of(environment), egress.pass_fds, egress)
    if clouds is not None:
        environment = await _with_clouds(client, task, stack, clouds, environment)
    return _Start(command, environment)


async def _with_clouds(
    client: Any, task: Any, stack: contextlib.AsyncExitStack, clouds: Clouds, environment: dict[str, str]
) -> dict[str, str]:
    """The environment with the endpoints, if the task has resources that they are for. Says what they displace."""
    from sojourn.sdk.cloud import selection

    chosen = selection.choose(task.status.outside, clouds.resources)
    if not chosen and clouds.vault_token_file is None:
        if clouds.show:
            print("sojourn: the task has no resource that SDKs of clouds are for", file=sys.stderr)
        return environment
    _guard_memory(client.socket)
    options = {"resources": clouds.resources, "vault_token_file": clouds.vault_token_file}
    endpoints = await stack.enter_async_context(task.cloud_endpoints(**options))
    displaced = endpoints.displaced(environment)
    if displaced:
        names = ", ".join(displaced)
        print(f"sojourn: the command gets the task's credentials in the place of {names}", file=sys.stderr)
    if clouds.show:
        for line in endpoints.shown():
            print(f"sojourn: {line}", file=sys.stderr)
    return endpoints.of(environment)  # type: ignore[no-any-return]  # of the task, which is Any here


def _guard_memory(socket_path: str) -> None:
    """Keep what is held here from the command, which runs as the same user: no core file, and no reading of this
    process's memory where the agent does not need the same right to attest it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if Path(socket_path).stat().st_uid != os.geteuid():
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def _until_over(process: asyncio.subprocess.Process, task: Any, grace_seconds: float) -> bool:
    """Return when the command has ended; say whether the task ended first."""
    exited = asyncio.ensure_future(process.wait())
    ended = asyncio.ensure_future(task.wait_ended())
    try:
        await asyncio.wait({exited, ended}, return_when=asyncio.FIRST_COMPLETED)
        if exited.done():
            return False
        print(f"sojourn: the task has ended ({task.state}: {task.why}); stopping the command", file=sys.stderr)
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


class _Signals:
    """Passes signals on to the command, those included that came before it ran, and collects orphans left to us."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._early: list[signal.Signals] = []

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in _FORWARDED:
            loop.add_signal_handler(number, self._forward, number)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the terminal sends it to the command as well
        return self

    def begin(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        for number in self._early:
            self._forward(number)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, _collect, process.pid)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (*_FORWARDED, signal.SIGINT, signal.SIGCHLD):
            loop.remove_signal_handler(number)

    def _forward(self, number: signal.Signals) -> None:
        if self._process is None:
            self._early.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def _collect(command_pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None or found.si_pid == command_pid:
                return  # asyncio waits for the command itself
            os.waitpid(found.si_pid, 0)
