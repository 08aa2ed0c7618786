"""Connections to one provider that are used one call after another.

Not the HTTP library's own pool: there a call that is given up while it waits can take its place with it for good.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpcore

from sojourn.limits import PROVIDER_CALLS_AT_ONCE, PROVIDER_IDLE_CONNECTIONS, PROVIDER_IDLE_SECONDS
from sojourn.providers.guarded_connect import Guarded

_Key = tuple[bytes, bytes, int]


class Pool:
    """PROVIDER_CALLS_AT_ONCE calls, each on a connection of its own; who comes after those waits for one to be over."""

    def __init__(self, backend: Guarded, context: ssl.SSLContext | None = None) -> None:
        self._backend = backend
        self._context = context
        self._turns = asyncio.Semaphore(PROVIDER_CALLS_AT_ONCE)
        self._idle: list[tuple[_Key, httpcore.AsyncHTTPConnection]] = []  # the one that was used last is the last
        self._closed = False

    @property
    def idle(self) -> int:
        """How many connections are kept."""
        return len(self._idle)

    @asynccontextmanager
    async def connection(self, url: httpcore.URL) -> AsyncIterator[httpcore.AsyncHTTPConnection]:
        """A connection for one request and its answer, for nobody else; kept if that was read to its end."""
        origin = url.origin
        key = (origin.scheme, origin.host, origin.port)
        async with self._turns:
            connection = await self._kept(key) or httpcore.AsyncHTTPConnection(
                origin,
                ssl_context=self._context,
                keepalive_expiry=PROVIDER_IDLE_SECONDS,
                http1=True,
                http2=False,
                retries=0,
                network_backend=self._backend,
            )
            try:
                yield connection
            finally:
                if connection.is_available() and _is_drained(connection) and not self._closed:
                    self._idle.append((key, connection))
                    if len(self._idle) > PROVIDER_IDLE_CONNECTIONS:
                        await self._idle.pop(0)[1].aclose()
                else:
                    await connection.aclose()

    async def close(self) -> None:
        """Let go of those that are kept; those that are in use go when their calls are over."""
        self._closed = True
        while self._idle:
            await self._idle.pop()[1].aclose()

    async def _kept(self, key: _Key) -> httpcore.AsyncHTTPConnection | None:
        for index in reversed(range(len(self._idle))):
            if self._idle[index][0] != key:
                continue
            connection = self._idle.pop(index)[1]
            if not connection.has_expired():
                return connection
            await connection.aclose()
            return await self._kept(key)
        return None


def _is_drained(connection: httpcore.AsyncHTTPConnection) -> bool:
    """Whether nothing has come behind the answer: the next request, which may be another task's, would get it."""
    within = getattr(getattr(connection, "_connection", None), "_h11_state", None)  # the library does not look
    return within is not None and within.trailing_data[0] == b""
