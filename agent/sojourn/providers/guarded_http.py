"""HTTP to the outside: guarded, bounded, and never followed elsewhere. Imported when a provider is made."""

import asyncio
import json
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, Final
from urllib.parse import urlencode

import httpcore

from sojourn.errors import InvalidConfig
from sojourn.limits import (
    PROVIDER_ANSWER_MAX_BYTES,
    PROVIDER_CONNECT_SECONDS,
    PROVIDER_HEADERS,
    PROVIDER_HEADERS_MAX_BYTES,
)
from sojourn.net.urls import Url, parse_url
from sojourn.providers.connection_pool import Pool
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.guarded_connect import Guarded, Lookups, tls_context
from sojourn.providers.http import HttpResponse
from sojourn.providers.provider import ProviderTable

_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"


class GuardedHttp:
    """Http over TLS, with connections that are kept. One for each provider: none waits for another's.

    It goes nowhere but to the public internet and to what its table allows, by whatever URL, at each connection anew.
    Nothing of the environment changes that: no proxy, no passwords.
    """

    def __init__(self, table: ProviderTable) -> None:
        """Raise InvalidConfig if `ca` is not a file of certificates."""
        self._seconds = table.timeout.total_seconds()
        try:
            context = tls_context(table.ca)
        except OSError as error:
            raise InvalidConfig([f"ca: {table.ca} is not a PEM file of certificates: {error.strerror}"]) from error
        lookups, networks = Lookups(), [ip_network(each) for each in table.private_networks]
        self._secure = Pool(Guarded(lookups, networks, loopback=False), context)
        self._plain = Pool(Guarded(lookups, (), loopback=True)) if table.plain_http else None

    async def get(self, url: str, *, step: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
        return await self._ask("GET", url, None, step, headers or {})

    async def post_form(
        self, url: str, form: Mapping[str, str], *, step: str, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        return await self._ask("POST", url, urlencode(form).encode(), step, {"content-type": _FORM, **(headers or {})})

    async def post_json(
        self, url: str, body: Mapping[str, Any], *, step: str, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        content = json.dumps(body, ensure_ascii=True, allow_nan=False).encode()
        return await self._ask("POST", url, content, step, {"content-type": _JSON, **(headers or {})})

    async def close(self) -> None:
        await self._secure.close()
        if self._plain is not None:
            await self._plain.close()

    async def _ask(
        self, method: str, url: str, content: bytes | None, step: str, headers: Mapping[str, str]
    ) -> HttpResponse:
        try:
            target = parse_url(url)
        except ValueError as error:
            raise ProviderUnavailable(f"an address {error}", step=step, at="address") from error
        pool = self._secure if target.scheme == "https" else self._plain
        if pool is None:
            raise ProviderUnavailable(
                f"{target.authority} is to be asked over plain http",
                step=step,
                at="address",
                hint="use an https URL; for a loopback address plain_http = true allows it",
            )
        call = _Call(target, step)
        try:
            async with asyncio.timeout(self._seconds):
                return await call.answer(pool, method, content, headers)
        except TimeoutError:
            raise call.unavailable("did not answer in time") from None
        except ProviderUnavailable as error:
            error.step = step
            raise
        except httpcore.TimeoutException as error:
            raise call.unavailable("did not answer in time") from error
        except httpcore.ProtocolError as error:
            raise call.unavailable("broke off, or does not speak HTTP") from error
        except (httpcore.NetworkError, httpcore.UnsupportedProtocol) as error:
            raise call.unavailable("broke off") from error


class _Call:
    """One request and its answer."""

    def __init__(self, url: Url, step: str) -> None:
        self._url = url
        self._step = step
        self._sent = False

    def unavailable(self, why: str, *, hint: str = "") -> ProviderUnavailable:
        return ProviderUnavailable(f"{self._url.authority} {why}", step=self._step, sent=self._sent, hint=hint)

    async def answer(self, pool: Pool, method: str, content: bytes | None, headers: Mapping[str, str]) -> HttpResponse:
        url = httpcore.URL(
            scheme=self._url.scheme, host=self._url.host, port=self._url.port, target=self._url.target.encode()
        )
        # An answer that is packed could unpack to any size; nothing here needs one.
        fixed = {"host": self._url.authority, "accept": _JSON, "accept-encoding": "identity", "user-agent": "sojourn"}
        if content is not None:
            fixed["content-length"] = str(len(content))
        named = {**fixed, **{name.lower(): value for name, value in headers.items()}}
        sent = [(name.encode(), value.encode()) for name, value in named.items()]
        extensions = {"trace": self._trace, "timeout": {"connect": PROVIDER_CONNECT_SECONDS}}
        request = httpcore.Request(method, url, headers=sent, content=content, extensions=extensions)
        async with pool.connection(url) as connection:
            response = await connection.handle_async_request(request)
            try:
                return await self._read(response)
            finally:
                await response.aclose()

    async def _read(self, response: httpcore.Response) -> HttpResponse:
        received = self._headers(response.headers)
        if response.status < 200:
            raise self.unavailable("wants to speak something else than HTTP")
        if 300 <= response.status < 400:
            raise self._redirected(received.get("location", ""))
        if received.get("content-encoding", "identity").lower() != "identity":
            raise self.unavailable("answered in an encoding that was not asked for")
        body = bytearray()
        async for part in response.aiter_stream():
            body += part
            if len(body) > PROVIDER_ANSWER_MAX_BYTES:
                raise self.unavailable(f"answered with more than {PROVIDER_ANSWER_MAX_BYTES} bytes")
        return HttpResponse(response.status, received, bytes(body))

    async def _trace(self, event: str, _info: Mapping[str, Any]) -> None:
        if event == "http11.send_request_headers.started":
            self._sent = True

    def _headers(self, raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
        size = sum(len(name) + len(value) for name, value in raw)
        if len(raw) > PROVIDER_HEADERS or size > PROVIDER_HEADERS_MAX_BYTES:
            raise self.unavailable("answered with too many headers")
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}

    def _redirected(self, location: str) -> ProviderUnavailable:
        try:
            where = f" to {parse_url(location).authority}"
        except ValueError:
            where = ""
        return self.unavailable(f"redirects{where}, which is not followed", hint="set the address that it leads to")
