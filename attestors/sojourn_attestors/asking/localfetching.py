"""Asks a server on a Unix socket of this machine: JSON over HTTP, with a limit to everything.

Each question has a connection of its own, and before anything is said on it the kernel tells who listens there.
"""

import asyncio
import errno
import os
import socket
import stat
import struct
from concurrent.futures import Executor
from typing import Any, Final

import h11
from sojourn.errors import AttestationFailed
from sojourn.limits import USER_SOCKETS_AT_ONCE
from sojourn.net.sockets import take_no_descriptors

from sojourn_attestors.asking.fetching import Late, Unwell, document

_BLOCK: Final = 64 * 1024
_FULL_SECONDS: Final = 0.01  # until the next try, where the line of those who connect is full
_HEADERS: Final = [("host", "localhost"), ("accept", "application/json"), ("accept-encoding", "identity")]
_WHY: Final = {
    errno.ENOENT: "there is no socket at {}",
    errno.ECONNREFUSED: "nobody listens at {}",
    errno.EACCES: "this agent may not use {}: it takes root, or the group of the socket",
    errno.EPERM: "this agent may not use {}: it takes root, or the group of the socket",
}


class SocketFinder:
    """Opens the sockets that paths lead to. One path of each user at a time, and few of all users."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._for_users: set[int] = set()

    async def find(self, path: str, owner: int) -> int:
        """A descriptor that names the socket (O_PATH), to be closed. Raise AttestationFailed if it is not `owner`'s."""
        if owner:
            if owner in self._for_users or len(self._for_users) >= USER_SOCKETS_AT_ONCE:
                raise Unwell(f"the folders of users, of {path} or before it, do not answer")
            self._for_users.add(owner)
        finding = self._pool.submit(_open, path, owner)
        if owner:
            loop = asyncio.get_running_loop()
            finding.add_done_callback(lambda _: loop.call_soon_threadsafe(self._for_users.discard, owner))
        try:
            return await asyncio.wrap_future(finding)
        except asyncio.CancelledError:
            finding.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() else os.close(done.result())
            )
            raise


class LocalJsonClient:
    """Fetches JSON documents from one server, which `owner` runs."""

    def __init__(self, what: str, path: str, owner: int, finder: SocketFinder, *, answer_max_bytes: int) -> None:
        """`what` names the server in errors. `path`: its socket. `owner`: a uid."""
        self._what = what
        self._path = path
        self._owner = owner
        self._finder = finder
        self._limit = answer_max_bytes

    async def get(self, path: str, seconds: float) -> Any:
        """The document at `path`, within `seconds`. Raise NotThere, Unwell, Late or another AttestationFailed."""
        try:
            async with asyncio.timeout(seconds):
                status, body = await self._ask(path)
        except TimeoutError:
            raise Late(f"{self._what} did not answer within {seconds:.2g} s") from None
        except OSError as error:
            why = _WHY.get(error.errno or 0, "the connection to {} broke")
            raise Unwell(f"{self._what} cannot be asked: {why.format(self._path)}", detail=str(error)) from error
        except h11.ProtocolError as error:
            raise Unwell(f"{self._what} does not speak HTTP, or hung up", detail=str(error)) from error
        return document(self._what, status, body)

    async def _ask(self, path: str) -> tuple[int, bytes]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.setblocking(False)
            take_no_descriptors(connection)
            found = await self._finder.find(self._path, self._owner)
            try:
                await _connect(connection, f"/proc/self/fd/{found}")
            finally:
                os.close(found)
            _, listener, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if listener != self._owner:
                raise AttestationFailed(f"at {self._path} listens user {listener}, and not {self._owner}")
            return await self._exchange(connection, path)

    async def _exchange(self, connection: socket.socket, path: str) -> tuple[int, bytes]:
        loop = asyncio.get_running_loop()
        talk = h11.Connection(h11.CLIENT)
        asked = [h11.Request(method="GET", target=path, headers=_HEADERS), h11.EndOfMessage()]
        await loop.sock_sendall(connection, b"".join(talk.send(part) or b"" for part in asked))
        status = received = 0
        body = bytearray()
        while True:
            event = talk.next_event()
            if event is h11.NEED_DATA:
                block = await loop.sock_recv(connection, _BLOCK)
                received += len(block)
                if received > self._limit:
                    raise AttestationFailed(f"{self._what} answered more than {self._limit} bytes")
                talk.receive_data(block)
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, bytes(body)


def _open(path: str, owner: int) -> int:
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(found)
        if not stat.S_ISSOCK(status.st_mode):
            raise AttestationFailed(f"{path} is not a socket")
        if status.st_uid != owner:
            raise AttestationFailed(f"{path} belongs to user {status.st_uid}, and not to {owner}")
    except BaseException:
        os.close(found)
        raise
    return found


async def _connect(connection: socket.socket, path: str) -> None:
    while True:
        try:
            connection.connect(path)
        except BlockingIOError:  # a Unix socket tells no other way, and no event comes
            await asyncio.sleep(_FULL_SECONDS)
        else:
            return
