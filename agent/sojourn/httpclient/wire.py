"""Connections whose other end may send small pieces without end, and whose TLS says what it does not like."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any

import httpcore2

from sojourn.httpclient.faults import HttpFault, Why, errno_of, tls_fault_of


@dataclass(frozen=True, slots=True)
class WireLimits:
    """`read_bytes`: at once, all of which is parsed before anything else goes on. `answer_bytes`: of one answer."""

    read_bytes: int
    answer_bytes: int


class BoundedStream(httpcore2.AsyncNetworkStream):
    """A connection on which an answer has an end, and all else goes on meanwhile.

    What the HTTP library skips, interim answers and the frames of chunks, counts here.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream, limits: WireLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._received = 0  # since something was last sent

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # the library's
        """Raise HttpFault (ENDLESS) for more than any answer has, and ReadError for what is no TLS (any more)."""
        await asyncio.sleep(0)  # what is there already would be read without a pause
        try:
            data = await self._stream.read(min(max_bytes, self._limits.read_bytes), timeout)
        except ssl.SSLError as error:  # which the library lets through
            raise httpcore2.ReadError(str(error)) from error
        self._received += len(data)
        if self._received > self._limits.answer_bytes:
            raise HttpFault(Why.ENDLESS)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  # the library's
        """Raise WriteError for what is no TLS (any more)."""
        self._received = 0
        try:
            await self._stream.write(buffer, timeout)
        except ssl.SSLError as error:
            raise httpcore2.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the library's
    ) -> httpcore2.AsyncNetworkStream:
        """Raise HttpFault: CERTIFICATE, TLS, TLS_LATE or BROKEN_HANDSHAKE."""
        done = False
        try:
            stream = BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._limits)
            done = True
            return stream
        except httpcore2.TimeoutException as error:
            raise HttpFault(Why.TLS_LATE) from error
        except (httpcore2.NetworkError, ssl.SSLError) as error:
            ended = HttpFault(Why.BROKEN_HANDSHAKE, errno=errno_of(error), detail=repr(error))
            raise tls_fault_of(error) or ended from error
        finally:
            if not done:
                await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
