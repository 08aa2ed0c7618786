"""Connections that are used one call after another.

The library's own pool, which a call that is given up takes no place of. It would use a connection again on which more
came than the answer, and give that to the next request, which may be another task's: this one does not.
"""

import ssl

import httpcore2


class Pool(httpcore2.AsyncConnectionPool):
    """HTTP/1.1 alone. `connections`: at once; who comes after those waits. `kept`: of those without a request.

    `keep_seconds`: so long; None: until the server closes them.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        transport: httpcore2.AsyncNetworkBackend | None = None,
        *,
        connections: int | None = None,
        kept: int | None = None,
        keep_seconds: float | None = None,
    ) -> None:
        super().__init__(
            ssl_context=context,
            max_connections=connections,
            max_keepalive_connections=kept,
            keepalive_expiry=keep_seconds,
            http1=True,
            http2=False,
            network_backend=transport,
        )
        self.retired = False

    @property
    def idle(self) -> int:
        """How many connections are kept."""
        return sum(each.is_idle() and not each.is_closed() for each in self.connections)

    @property
    def busy(self) -> int:
        """How many calls have a connection."""
        return sum(not each.is_idle() and not each.is_closed() for each in self.connections)

    async def retire(self) -> None:
        """Let go of those that are kept; those that are in use go when their calls are over."""
        self.retired = True
        await self.let_go()

    async def let_go(self) -> None:
        """Close those that are kept; further ones are kept as before."""
        for each in self.connections:
            if each.is_idle():
                await each.aclose()

    def create_connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
        return _Connection(self, origin)


class _Connection(httpcore2.AsyncHTTPConnection):
    def __init__(self, pool: Pool, origin: httpcore2.Origin) -> None:
        super().__init__(
            origin,
            ssl_context=pool._ssl_context,
            keepalive_expiry=pool._keepalive_expiry,
            http1=True,
            http2=False,
            network_backend=pool._network_backend,
        )
        self._pool = pool

    def has_expired(self) -> bool:
        """Whether no request may be sent on it: the pool asks this before it keeps one, and before it uses one."""
        return super().has_expired() or (self.is_idle() and (self._pool.retired or not self._is_drained()))

    def _is_drained(self) -> bool:
        """Whether nothing has come behind the answer."""
        within = getattr(self._connection, "_h11_state", None)  # the library does not look
        return within is not None and within.trailing_data[0] == b""
