"""How a command is started so that neither it nor anything that descends from it gets a token, task or identity."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sojourn.errors import FailedPrecondition

_START: Final = Path(__file__).with_name("start.py")
_ISOLATION: Final = Path(__file__).with_name("network.py")
_PYTHON: Final = (sys.executable, "-I", "-S")  # with nothing of the environment's or the working folder's
_MESSAGE_BYTES: Final = 4_096
_NONE: Final = "there is no network for the command alone here"
# By these, programs find an agent, and the task that they are in.
AGENT_NAMES: Final = ("SPIFFE_ENDPOINT_SOCKET",)
AGENT_PREFIX: Final = "SOJOURN_"


@dataclass(frozen=True, slots=True)
class Confinement:
    """`user`: as whom the command runs; None: as whoever starts it. `readable`: files that it needs. `namespaces`:
    descriptors of those that it enters, which it must inherit.
    """

    user: str | None = None
    readable: tuple[str, ...] = ()
    namespaces: tuple[int, ...] = ()

    def command(self, command: Sequence[str]) -> list[str]:
        """What to run in the place of `command`: it becomes it, with the same process ID."""
        settings = {"user": self.user, "readable": self.readable, "namespaces": self.namespaces}
        return [*_PYTHON, str(_START), json.dumps(settings), *command]


@contextmanager
def network(user: str | None) -> Iterator[tuple[socket.socket, tuple[int, ...]]]:
    """A listening socket on the loopback address of a network that has nothing else, and the namespaces that a command
    of `user` enters to be in it. Raise FailedPrecondition where the kernel gives none.
    """
    with ExitStack() as stack:
        mine, its = (stack.enter_context(each) for each in socket.socketpair())
        try:
            made = subprocess.run(  # noqa: S603  # a program of our own
                [*_PYTHON, str(_ISOLATION), str(its.fileno()), *([user] if user is not None else [])],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
        except OSError as error:
            raise FailedPrecondition(f"{_NONE}: this user cannot run {_PYTHON[0]}: {error.strerror}") from error
        its.close()
        message, descriptors, _, _ = socket.recv_fds(mine, _MESSAGE_BYTES, 3)
        for each in descriptors:
            stack.callback(os.close, each)
        if len(descriptors) != 3:
            raise FailedPrecondition(f"{_NONE}: {_told(message, made.stderr)}")
        listening = stack.enter_context(socket.socket(fileno=os.dup(descriptors[0])))
        yield listening, tuple(descriptors[1:])


def _told(message: bytes, said: bytes) -> str:
    if message:
        return str(json.loads(message).get("error", ""))
    return said.decode(errors="replace").removeprefix("error: ").strip() or "it could not be made"
