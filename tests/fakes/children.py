"""Real processes that live until the test ends them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from sojourn.attestation.peer import Peer
from sojourn.attestation.process import Process


@contextmanager
def child(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that does nothing, or runs `command`; killed and collected afterwards."""
    process = subprocess.Popen(command or ("sleep", "3600"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def waiting_child() -> "contextmanager[subprocess.Popen[bytes]]":
    """A child that returns 0 as soon as its standard input ends."""
    return child("cat")


def peer_of(process: subprocess.Popen[bytes]) -> Peer:
    """The peer that a child would be if it connected; close it."""
    return Peer.of_pid(process.pid)


def holder_of(process: subprocess.Popen[bytes]) -> Process:
    """A pinned process; whoever gets it closes it."""
    return Process.open(process.pid)
