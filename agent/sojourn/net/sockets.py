"""Sockets over which no descriptors come (SCM_RIGHTS)."""

import socket
from typing import Final

_SO_PASSRIGHTS: Final = 83  # of Linux 6.16 and newer; Python has no name for it


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
