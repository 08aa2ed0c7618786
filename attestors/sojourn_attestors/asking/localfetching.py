"""Asks a server on a Unix socket of this machine: JSON over HTTP, with a limit to everything.

Each question has a connection of its own, and before anything is said on it the kernel tells who listens there.
"""

import asyncio
import errno
import os
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final

from sojourn.httpclient.client import AnswerLimits, HttpClient
from sojourn.httpclient.faults import HttpFault, Why
from sojourn.httpclient.pool import Pool
from sojourn.httpclient.unix import UnixTransport, open_socket
from sojourn.httpclient.wire import WireLimits
from sojourn.limits import USER_SOCKETS_AT_ONCE
from sojourn.net.urls import Url

from sojourn_attestors.asking.fetching import Unwell, document, raise_for

_READ_BYTES: Final = 16 * 1024
_HEAD_MAX_BYTES: Final = 16 * 1024
_FRAMES_MAX_BYTES: Final = 128 * 1024  # beside the body: heads of which the HTTP library reads 100 KiB, and chunks
_WHY: Final = {
    errno.ENOENT: "there is no socket at {}",
    errno.ECONNREFUSED: "nobody listens at {}",
    errno.EACCES: "this agent may not use {}: it takes root, or the group of the socket",
    errno.ELOOP: "{} leads by a link to the files of a process, or by too many",
    errno.EPERM: "this agent may not use {}: it takes root, or the group of the socket",
}


class SocketFinder:
    """Opens the sockets that paths lead to. One path of each user at a time, and few of all users."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._for_users: set[int] = set()

    async def find(self, path: str, owner: int) -> int:
        """A descriptor that names the socket (O_PATH), to be closed.

        Raise HttpFault if it is not `owner`'s, Unwell, and OSError.
        """
        if owner:
            if owner in self._for_users or len(self._for_users) >= USER_SOCKETS_AT_ONCE:
                raise Unwell(f"the folders of users, of {path} or before it, do not answer")
            self._for_users.add(owner)
        finding = self._pool.submit(open_socket, path, owner)
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
        self._limit = answer_max_bytes
        wire = WireLimits(_READ_BYTES, answer_max_bytes + _FRAMES_MAX_BYTES)
        transport = UnixTransport(path, owner, partial(finder.find, path, owner), wire)
        limits = AnswerLimits(answer_max_bytes, header_bytes=_HEAD_MAX_BYTES)
        self._client = HttpClient(Pool(None, transport, kept=0), limits)

    async def get(self, path: str, seconds: float) -> Any:
        """The document at `path`, within `seconds`. Raise NotThere, Unwell, Late or another AttestationFailed."""
        try:
            answer = await self._client.ask("GET", Url("http", "localhost", 80, path), {}, seconds=seconds)
        except HttpFault as fault:
            raise_for(fault, self._what, seconds, self._limit, self._cannot)
        return document(self._what, answer.status, answer.body)

    def _cannot(self, fault: HttpFault) -> str:
        if fault.errno or fault.why in {Why.UNREACHABLE, Why.BROKEN}:
            why = _WHY.get(fault.errno, "the connection to {} broke")
            return f"cannot be asked: {why.format(self._path)}"
        return "does not speak HTTP, or hung up"
