"""What both ends of a TCP connection set, so that the other end's silence is noticed."""

import socket

from sojourn.limits import REMOTE_SILENT_SECONDS

_PROBES = 3


def set_options(connection: socket.socket) -> None:
    """Send at once, and take a peer that acknowledges nothing for REMOTE_SILENT_SECONDS for gone, busy or idle."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, REMOTE_SILENT_SECONDS // 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, REMOTE_SILENT_SECONDS // 2 // _PROBES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, REMOTE_SILENT_SECONDS * 1000)
