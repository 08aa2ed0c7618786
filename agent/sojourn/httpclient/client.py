"""One request and its whole answer: within a deadline, bounded in every size, and never followed elsewhere."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpcore2

from sojourn.httpclient.faults import HttpFault, Why, fault_of
from sojourn.httpclient.pool import Pool
from sojourn.net.urls import Url
from sojourn.runtime import trace

_SENT: Final = "http11.send_request_headers.started"
_FAILURES: Final = (
    *(HttpFault, OSError, httpcore2.TimeoutException, httpcore2.NetworkError),
    *(httpcore2.ProtocolError, httpcore2.UnsupportedProtocol),
)


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """The most that one answer may have: bytes of its body, headers, and their bytes together."""

    body_bytes: int
    headers: int | None = None
    header_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class HttpClient:
    """Asks over the connections of one pool. Nothing of the environment changes that: no proxy, no passwords."""

    def __init__(self, pool: Pool, limits: AnswerLimits) -> None:
        self.pool = pool
        self._limits = limits

    async def ask(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str],
        content: bytes | None = None,
        *,
        seconds: float | None = None,
        connect_seconds: float | None = None,
        server_name: str = "",
    ) -> Answer:
        """The whole answer, whatever its status but a redirect. Raise HttpFault.

        `seconds`: for all of it. `connect_seconds`: for a connection, and as long again for its TLS. `server_name`:
        whose the certificate must be, if it is not the URL's host.
        """
        call = _Call(self._limits)
        timeout = {} if connect_seconds is None else {"connect": connect_seconds}
        extensions: dict[str, Any] = {"trace": call.trace, "timeout": timeout}
        if server_name:
            extensions["sni_hostname"] = server_name
        fixed = {"host": url.authority, "accept": "application/json", "accept-encoding": "identity"}
        if content is not None:
            fixed["content-length"] = str(len(content))
        if (of_trace := trace.header()) is not None:
            fixed[trace.HEADER] = of_trace
        named = {**fixed, **{name.lower(): value for name, value in headers.items()}}
        request = httpcore2.Request(
            method,
            httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target.encode()),
            headers=[(name.encode(), value.encode()) for name, value in named.items()],
            content=content,
            extensions=extensions,
        )
        try:
            async with asyncio.timeout(seconds):
                return await call.answer(self.pool, request)
        except _FAILURES as error:
            fault = fault_of(error)
            fault.sent, fault.status = call.sent, call.status
            raise fault from (None if fault is error else error)

    async def close(self) -> None:
        """Let go of the connections that are kept; those that are in use go when their calls are over."""
        await self.pool.retire()


class _Call:
    """One request and its answer."""

    def __init__(self, limits: AnswerLimits) -> None:
        self._limits = limits
        self.sent = False
        self.status = 0

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        if event == _SENT:
            self.sent = True

    async def answer(self, pool: Pool, request: httpcore2.Request) -> Answer:
        response = await pool.handle_async_request(request)
        try:
            return await self._read(response)
        finally:
            await response.aclose()

    async def _read(self, response: httpcore2.Response) -> Answer:
        self.status = response.status
        headers = self._headers(response.headers)
        if response.status < 200:
            raise HttpFault(Why.SWITCHING)
        if 300 <= response.status < 400:
            raise HttpFault(Why.REDIRECT, reason=headers.get("location", ""))
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise HttpFault(Why.ENCODED)
        body = bytearray()
        async for part in response.aiter_stream():
            body += part
            if len(body) > self._limits.body_bytes:
                raise HttpFault(Why.TOO_LARGE)
        return Answer(response.status, headers, bytes(body))

    def _headers(self, raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
        size = sum(len(name) + len(value) for name, value in raw)
        most, most_bytes = self._limits.headers, self._limits.header_bytes
        if (most is not None and len(raw) > most) or (most_bytes is not None and size > most_bytes):
            raise HttpFault(Why.HEADERS)
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}
