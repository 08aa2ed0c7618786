"""Sockets over which no descriptors come (SCM_RIGHTS), and connects that wait for room."""

import socket
import struct
from typing import Final

_SO_PASSRIGHTS: Final = 83  # of Linux 6.16 and newer; Python has no name for it
_TIMEVAL: Final = struct.Struct("@ll")


def take_no_descriptors(connection: socket.socket) -> bool:
    """Have the kernel refuse descriptors that a peer sends along. Return whether it knows how to.

    What a peer sends and nobody takes is closed by the kernel in the reader's own thread, which that can hold up for as
    long as the sender likes: a TCP socket with SO_LINGER and unsent data, for one. An accepted connection inherits it.
    Where the kernel is older, the loop's waits are broken off (endpoints/listener/loop_watchdog.py).
    """
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    except OSError:
        return False
    return True


def connect_within(connection: socket.socket, path: str, seconds: float) -> None:
    """Connect a Unix socket, and wait for so many seconds where more wait there already than there is room for; each
    read and write then has as long. Raise OSError.

    With a timeout of Python's own the socket is non-blocking for the kernel, which then refuses at once and tells of
    room by no event. One that blocks waits in line.
    """
    whole, part = divmod(max(1, int(seconds * 1_000_000)), 1_000_000)  # of 0 the kernel waits without end
    connection.setblocking(True)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(whole, part))
    connection.connect(path)
    connection.settimeout(seconds)
