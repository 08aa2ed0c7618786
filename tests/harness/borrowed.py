"""Calls over a connection that another process has made (connector.py)."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.agent import clean_environment
from harness.raw import Wire, over


class Borrowed:
    """A process of some user that has connected to the agent, and its connection here. Use as a context manager."""

    def __init__(self, path: str, uid: int | None = None, groups: tuple[int, ...] = ()) -> None:
        here, there = socket.socketpair()
        numbers = [] if uid is None else [str(uid), *map(str, groups)]
        script = str(Path(__file__).with_name("connector.py"))
        with here, there:
            self.process = subprocess.Popen(
                [sys.executable, "-I", script, path, str(there.fileno()), *numbers],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[there.fileno()],
                env=clean_environment(),
            )
            there.close()
            _, descriptors, _, _ = socket.recv_fds(here, 1, 1)
        self.connection = socket.socket(fileno=descriptors[0])
        self.pid = self.process.pid

    def tell(self, command: str) -> None:
        """Give the process a command and wait until it is done, or just before an `exec`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        if command != "exit":
            assert "done\n" == self.process.stdout.readline()

    @contextlib.contextmanager
    def wire(self) -> Iterator[Wire]:
        with over(self.connection) as wire:
            yield wire

    def __enter__(self) -> "Borrowed":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


@contextlib.contextmanager
def wire_of(path: str, uid: int, groups: tuple[int, ...] = ()) -> Iterator[Wire]:
    """Calls as a process of another user."""
    with Borrowed(path, uid, groups) as borrowed, borrowed.wire() as wire:
        yield wire
