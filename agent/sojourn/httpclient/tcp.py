"""Connections over TCP: each address of a name is looked at, and the address that was looked at is connected to."""

import asyncio
from collections.abc import Callable, Iterable

import httpcore2

from sojourn.httpclient.faults import HttpFault, Why, errno_of
from sojourn.httpclient.lookups import Lookups
from sojourn.httpclient.wire import BoundedStream, WireLimits
from sojourn.net.allowed_addresses import Address


class TcpTransport(httpcore2.AsyncNetworkBackend):
    """Connects to those addresses of a name that may be connected to, one after the other, and to no others."""

    def __init__(
        self,
        lookups: Lookups,
        may_connect: Callable[[Address], bool],
        wire: WireLimits,
        *,
        tried: int | None = None,
        each_seconds: float | None = None,
    ) -> None:
        """`tried`: so many addresses at most. `each_seconds`: for each but the last, where a request sets no time to
        connect; where it does, the addresses share that.
        """
        self._lookups = lookups
        self._may_connect = may_connect
        self._wire = wire
        self._tried = tried
        self._each_seconds = each_seconds
        self._tcp = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # its signature is the library's
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Raise HttpFault: NO_ADDRESS, ADDRESS, CONNECT_LATE or UNREACHABLE."""
        try:
            async with asyncio.timeout(timeout):
                addresses = (await self._allowed(host, port))[: self._tried]
                failed: Exception | None = None
                for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
                    share = self._share(timeout, left)
                    try:
                        stream = await self._tcp.connect_tcp(str(address), port, share, local_address, socket_options)
                        return BoundedStream(stream, self._wire)
                    except (httpcore2.NetworkError, httpcore2.TimeoutException) as error:
                        failed = error
        except TimeoutError as error:
            raise HttpFault(Why.CONNECT_LATE) from error
        assert failed is not None  # there is an address
        raise HttpFault(Why.UNREACHABLE, errno=errno_of(failed), detail=repr(failed)) from failed

    async def _allowed(self, host: str, port: int) -> list[Address]:
        try:
            addresses = await self._lookups.of(host, port)
        except OSError as error:
            raise HttpFault(Why.NO_ADDRESS, reason=str(error), detail=str(error)) from error
        allowed = [each for each in addresses if self._may_connect(each)]
        if not allowed:
            raise HttpFault(Why.ADDRESS, addresses=addresses)
        return allowed

    def _share(self, total: float | None, left: int) -> float | None:
        if total is not None:
            return total / left
        return self._each_seconds if left > 1 else None

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
