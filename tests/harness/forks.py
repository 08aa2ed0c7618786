"""Programs of ours that a test starts: as processes of their own, or as forks of one that has imported what they are made of.

A new interpreter takes a quarter of a second for its imports before it says a word, and an agent half a second: a third of
the time of a run of tests. So `make test` forks them, and so does `make test-all`, but for the agents of tests that are
marked `full`: each of those is a program that was started. Tests that are about what an agent does and keeps, whichever way
it was started, and that `make test` leaves out, are marked `forked` instead. A fork has arguments, environment,
descriptors, folder, session and user of its own, and whoever started it sees a `subprocess.Popen`. What cannot be forked is
started: another interpreter, or an environment that an interpreter or a loader reads when it starts.
"""

import atexit
import contextlib
import functools
import inspect
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

AGENTS, SHORT, COMMANDS = "agents", "agents that may", "commands"
FORKING = set(os.environ.get("SOJOURN_TEST_FORKS", "").split(","))  # what of these is forked; see the Makefile
ENDED = "the process that forks for the tests has ended; the next program starts another"
PROGRAM = str(Path(sys.executable).with_name("sojourn"))
_SERVER = Path(__file__).with_name("forkserver.py")
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "OPENSSL_", "GLIBC_", "VIRTUAL_ENV")
_STATUS_MAX = 16
_FORKING_SECONDS = 60  # a fork takes milliseconds: this is for a machine that stands still
_ASKING = threading.Lock()  # tests start programs from threads: an answer is to whoever asked


def popen(arguments: Sequence[str], *, kind: str = COMMANDS, **options: Any) -> "subprocess.Popen[str]":
    """As subprocess.Popen, which it is where this is no program of ours, or none of a kind that is forked in this run."""
    script = _script(arguments)
    start = _start_of(options.get("env"))
    if script and (start in _SERVERS or (kind in FORKING and start == _start_of(None))):
        return Forked(script, _SERVERS.get(start) or _server(), **options)
    return subprocess.Popen(arguments, **options)


def run(arguments: Sequence[str], *, timeout: float, **options: Any) -> "subprocess.CompletedProcess[str]":
    """As subprocess.run with `capture_output`."""
    with popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def begin_test(*, programs: bool) -> None:
    """Say whether the agents of the test that comes next are programs that were started, where the run has both kinds."""
    if SHORT in FORKING:
        (FORKING.discard if programs else FORKING.add)(AGENTS)


def _script(arguments: Sequence[str]) -> list[str]:
    """The program and its arguments, without the interpreter that it is for; []: it is none that can be forked."""
    first, *rest = arguments
    if first == PROGRAM:
        return [*arguments]
    return rest if first == sys.executable and rest and not rest[0].startswith("-") else []


def _start_of(environment: Mapping[str, str] | None) -> frozenset[tuple[str, str]]:
    """What an interpreter or a loader reads of an environment when it starts; None: of ours."""
    given = os.environ if environment is None else environment
    return frozenset((name, value) for name, value in given.items() if name.startswith(_READ_AT_START))


_SERVERS: dict[frozenset[tuple[str, str]], socket.socket] = {}


@contextlib.contextmanager
def forking(environment: Mapping[str, str]) -> Iterator[None]:
    """Within this, programs of ours that are started in such an environment are forked, whatever else is in this run."""
    start = _start_of(environment)
    server, ours = _started(environment)
    _SERVERS[start] = ours
    try:
        yield
    finally:
        del _SERVERS[start]
        ours.close()
        server.wait()


class Forked(subprocess.Popen[str]):
    """A process that another has forked for us, which tells how it ended."""

    _status: int  # its wait status can be read from here

    def __init__(self, script: Sequence[str], server: socket.socket, **options: Any) -> None:
        self._server = server
        super().__init__(script, **options)

    def _execute_child(self, *given: Any) -> None:
        """As Popen's own, by which it has its streams: makes `pid`, and closes what is the child's."""
        of = inspect.signature(subprocess.Popen._execute_child).bind(self, *given).arguments  # type: ignore[attr-defined]
        ends = {"p2cread": 0, "c2pwrite": 1, "errwrite": 2}
        streams = [of[name] if of[name] != -1 else number for name, number in ends.items()]
        self._status, writes = os.pipe()
        environment = of["env"]
        wanted = {
            "arguments": of["args"],
            "environment": dict(os.environ if environment is None else environment),
            "folder": os.fspath(of["cwd"] or os.getcwd()),
            "umask": _umask(),
            "session": bool(of["start_new_session"]),
        }
        server = self._server
        try:
            with _ASKING:
                socket.send_fds(server, [json.dumps(wanted).encode()], [*streams, writes])
                said = server.recv(_STATUS_MAX)
        except (BrokenPipeError, ConnectionResetError):
            said = b""
        finally:
            os.close(writes)
        if not said:
            _server.cache_clear()
            raise RuntimeError(ENDED)
        self.pid = int(said)
        self._child_created = True
        self._close_pipe_fds(*(of[n] for n in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")))  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """As os.waitpid does of a child."""
        poll = select.poll()  # not select: a test may hold more descriptors than that takes
        poll.register(self._status, select.POLLIN)
        if not poll.poll(0 if wait_flags & os.WNOHANG else None):
            return 0, 0
        said = os.read(self._status, _STATUS_MAX)
        os.close(self._status)
        if not said:
            raise RuntimeError(ENDED)
        return self.pid, int(said)

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._child_created:
            pid, status = self._try_wait(os.WNOHANG)
            if pid == self.pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


def _umask() -> int:
    before = os.umask(0o022)
    os.umask(before)
    return before


@functools.cache
def _server() -> socket.socket:
    """One for this process and as long as it. Forks that still run when it ends are killed."""
    server, ours = _started(os.environ)

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


def _started(environment: Mapping[str, str]) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """A process that forks, started in that environment, and where it is asked to."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(_FORKING_SECONDS)
    with its:
        return subprocess.Popen([sys.executable, str(_SERVER)], stdin=its, env=environment), ours
