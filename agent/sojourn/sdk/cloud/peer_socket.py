"""Whose socket is at the other end of a connection on this machine."""

import asyncio
import socket
import struct
import sys
from typing import Any, Final

_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")  # of this network namespace; a dual-stack client is in the second
_LOCAL, _REMOTE, _UID, _INODE = 1, 2, 7, 9  # columns
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


async def uid_of_tcp(connection: Any) -> int | None:
    """The user that owns the client's socket of a TCP connection over IPv4 loopback; None: that cannot be told.

    -1: there is no such socket any more, or it is nobody's, as one that was closed, which the kernel calls root's.
    """
    client, server = connection.getpeername(), connection.getsockname()
    return await asyncio.to_thread(_look_up, client[:2], server[:2])


def uid_of_unix(connection: Any) -> int:
    """The user who connected a Unix socket."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def _look_up(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    told = False
    for table, write in zip(_TABLES, (_short, _long), strict=True):
        wanted = write(*client), write(*server)
        try:
            with open(table, encoding="ascii") as lines:
                next(lines, None)
                for line in lines:
                    fields = line.split()
                    if (fields[_LOCAL], fields[_REMOTE]) == wanted:
                        return int(fields[_UID]) if fields[_INODE] != "0" else -1
        except (OSError, ValueError, IndexError):
            continue
        told = told or table == _TABLES[0]
    return -1 if told else None


def _short(host: str, port: int) -> str:
    """As the kernel writes an IPv4 endpoint: words in the order of this machine."""
    return f"{_word(socket.inet_aton(host))}:{port:04X}"


def _long(host: str, port: int) -> str:
    """The same, mapped into IPv6."""
    return f"{'0' * 16}{_word(bytes((0, 0, 255, 255)))}{_short(host, port)}"


def _word(four: bytes) -> str:
    return f"{int.from_bytes(four, sys.byteorder):08X}"
