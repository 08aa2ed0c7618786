"""Connections to a Unix socket of this machine: the kernel tells who listens there, before anything is said."""

import asyncio
import ctypes
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import httpcore2

from sojourn.httpclient.faults import HttpFault, Why
from sojourn.httpclient.wire import BoundedStream, WireLimits
from sojourn.net.sockets import take_no_descriptors

_AT_FDCWD: Final = -100
_OPENAT2: Final = 437  # on every architecture
_OPEN_HOW: Final = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_libc: Final = ctypes.CDLL(None, use_errno=True)
_FULL_SECONDS: Final = 0.01  # until the next try, where the line of those who connect is full


def open_socket(path: str, owner: int) -> int:
    """A descriptor that names the socket at `path` (O_PATH), to be closed. Blocks as long as folders on the way do.

    Of another user than root it is looked for in this mount namespace alone: a link to a process's files could lead
    into one of theirs, whose file systems wait and end as they like. Raise HttpFault (OWNER) if it is no socket or not
    the user `owner`'s, and OSError.
    """
    found = os.open(path, os.O_PATH | os.O_CLOEXEC) if owner == 0 else _open_here(path)
    try:
        status = os.fstat(found)
        if not stat.S_ISSOCK(status.st_mode):
            raise HttpFault(Why.OWNER, reason=f"{path} is not a socket")
        if status.st_uid != owner:
            raise HttpFault(Why.OWNER, reason=f"{path} belongs to user {status.st_uid}, and not to {owner}")
    except BaseException:
        os.close(found)
        raise
    return found


def _open_here(path: str) -> int:
    """As os.open(path, O_PATH), and by no link of the kernel's, such as /proc/PID/root (openat2, Linux 5.6)."""
    how = _OPEN_HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_MAGICLINKS)
    found = int(_libc.syscall(_OPENAT2, _AT_FDCWD, os.fsencode(path), how, ctypes.c_size_t(len(how))))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return found


class UnixTransport(httpcore2.AsyncNetworkBackend):
    """Connects to one socket, whatever host a request is for, if user `owner` listens there."""

    def __init__(self, path: str, owner: int, find: Callable[[], Awaitable[int]], wire: WireLimits) -> None:
        """`path`: for errors. `find`: gives a descriptor that names the socket, as `open_socket` does."""
        self._path = path
        self._owner = owner
        self._find = find
        self._wire = wire

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002  # its signature is the library's
        port: int,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ARG002, ASYNC109
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore2.AsyncNetworkStream:
        """Raise HttpFault: UNREACHABLE or OWNER; and what `find` raises."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.setblocking(False)
            take_no_descriptors(connection)
            await self._connect(connection)
            _, listener, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if listener != self._owner:
                raise HttpFault(Why.OWNER, reason=f"at {self._path} listens user {listener}, and not {self._owner}")
        except BaseException:
            connection.close()
            raise
        return BoundedStream(_SocketStream(connection), self._wire)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            found = await self._find()
            try:
                await _connect(connection, f"/proc/self/fd/{found}")
            finally:
                os.close(found)
        except TimeoutError:
            raise  # the caller's own
        except OSError as error:
            raise HttpFault(Why.UNREACHABLE, errno=error.errno or 0, detail=str(error)) from error


async def _connect(connection: socket.socket, path: str) -> None:
    while True:
        try:
            connection.connect(path)
        except BlockingIOError:  # a Unix socket tells no other way, and no event comes
            await asyncio.sleep(_FULL_SECONDS)
        else:
            return


class _SocketStream(httpcore2.AsyncNetworkStream):
    """The library's stream over a socket of our own making. The request's deadline is the only one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109
        try:
            return await asyncio.get_running_loop().sock_recv(self._connection, max_bytes)
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        try:
            await asyncio.get_running_loop().sock_sendall(self._connection, buffer)
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self._connection.close()
