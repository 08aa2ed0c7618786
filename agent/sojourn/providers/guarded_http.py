"""HTTP to the outside: guarded, bounded, and never followed elsewhere. Imported when a provider is made."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import ip_network
from ssl import SSLContext
from typing import Any, Final
from urllib.parse import urlencode

from sojourn.errors import InvalidConfig
from sojourn.httpclient.client import AnswerLimits, HttpClient
from sojourn.httpclient.faults import HttpFault, Why
from sojourn.httpclient.lookups import Lookups
from sojourn.httpclient.pool import Pool
from sojourn.httpclient.tcp import TcpTransport
from sojourn.httpclient.wire import WireLimits
from sojourn.limits import (
    PROVIDER_ADDRESSES_TRIED,
    PROVIDER_ANSWER_MAX_BYTES,
    PROVIDER_CALLS_AT_ONCE,
    PROVIDER_CONNECT_SECONDS,
    PROVIDER_HEADERS,
    PROVIDER_HEADERS_MAX_BYTES,
    PROVIDER_IDLE_CONNECTIONS,
    PROVIDER_IDLE_SECONDS,
    PROVIDER_LOOKUPS_AT_ONCE,
    PROVIDER_READ_BYTES,
    PROVIDER_WIRE_MAX_BYTES,
)
from sojourn.net.allowed_addresses import Address, is_loopback, may_connect
from sojourn.net.tls_contexts import web_context
from sojourn.net.urls import Url, parse_url
from sojourn.providers.errors import At, ProviderUnavailable
from sojourn.providers.http import HttpResponse
from sojourn.settings.outside import OutsideTable

_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"
_LIMITS: Final = AnswerLimits(PROVIDER_ANSWER_MAX_BYTES, PROVIDER_HEADERS, PROVIDER_HEADERS_MAX_BYTES)
_WIRE: Final = WireLimits(PROVIDER_READ_BYTES, PROVIDER_WIRE_MAX_BYTES)
_BROKE_OFF: Final = "broke off"
_NOT_HTTP: Final = "broke off, or does not speak HTTP"
_NO_TLS: Final = "does not speak TLS 1.2 or newer at this port"
# What is said behind the host, and behind the authority.
_OF_HOST: Final[Mapping[Why, tuple[At, str]]] = {
    Why.NO_ADDRESS: ("address", "has no address"),
    Why.CONNECT_LATE: ("address", "did not accept a connection in time"),
    Why.TLS_LATE: ("tls", "did not answer in TLS in time"),
    Why.TLS: ("tls", _NO_TLS),
    Why.BROKEN_HANDSHAKE: ("tls", _NO_TLS),
}
_OF_AUTHORITY: Final[Mapping[Why, str]] = {
    Why.LATE: "did not answer in time",
    Why.BROKEN: _BROKE_OFF,
    Why.BROKEN_TLS: _BROKE_OFF,
    Why.NOT_HTTP: _NOT_HTTP,
    Why.ENDLESS: _NOT_HTTP,
    Why.SWITCHING: "wants to speak something else than HTTP",
    Why.HEADERS: "answered with too many headers",
    Why.ENCODED: "answered in an encoding that was not asked for",
    Why.TOO_LARGE: f"answered with more than {PROVIDER_ANSWER_MAX_BYTES} bytes",
}


class GuardedHttp:
    """Http over TLS, with connections that are kept. One for each provider: none waits for another's.

    It goes nowhere but to the public internet and to what its table allows, by whatever URL, at each connection anew.
    Nothing of the environment changes that: no proxy, no passwords.
    """

    def __init__(self, table: OutsideTable) -> None:
        """Raise InvalidConfig if `ca` is not a file of certificates."""
        self._seconds = table.timeout.total_seconds()
        try:
            context = web_context(table.ca)
        except OSError as error:
            raise InvalidConfig([f"ca: {table.ca} is not a PEM file of certificates: {error.strerror}"]) from error
        lookups = Lookups(PROVIDER_LOOKUPS_AT_ONCE)
        networks = [ip_network(each) for each in table.private_networks]
        self.context = context
        self._secure = _client(lookups, partial(may_connect, allowed=networks), context)
        self._plain = _client(lookups, is_loopback, None) if table.plain_http else None

    async def get(self, url: str, *, step: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
        return await self.ask("GET", url, None, step, headers or {})

    async def post_form(
        self, url: str, form: Mapping[str, str], *, step: str, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        return await self.ask("POST", url, urlencode(form).encode(), step, {"content-type": _FORM, **(headers or {})})

    async def post_json(
        self, url: str, body: Mapping[str, Any], *, step: str, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        content = json.dumps(body, ensure_ascii=True, allow_nan=False).encode()
        return await self.ask("POST", url, content, step, {"content-type": _JSON, **(headers or {})})

    async def post_content(
        self, url: str, content: bytes, *, step: str, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """Post these bytes; their type is among the headers."""
        return await self.ask("POST", url, content, step, headers or {})

    async def let_go(self) -> None:
        """Close the connections that are kept; the next ones are made anew, by what `context` shows then."""
        await self._secure.pool.let_go()

    async def close(self) -> None:
        await self._secure.close()
        if self._plain is not None:
            await self._plain.close()

    async def ask(
        self, method: str, url: str, content: bytes | None, step: str, headers: Mapping[str, str]
    ) -> HttpResponse:
        """Any request. What the content's type is stands among the headers."""
        try:
            target = parse_url(url)
        except ValueError as error:
            raise ProviderUnavailable(f"an address {error}", step=step, at="address") from error
        client = self._secure if target.scheme == "https" else self._plain
        if client is None:
            raise ProviderUnavailable(
                f"{target.authority} is to be asked over plain http",
                step=step,
                at="address",
                hint="use an https URL; for a loopback address plain_http = true allows it",
            )
        try:
            answer = await client.ask(
                method,
                target,
                {"user-agent": "sojourn", **headers},
                content,
                seconds=self._seconds,
                connect_seconds=PROVIDER_CONNECT_SECONDS,
            )
        except HttpFault as fault:
            told = unavailable(fault, target)
            told.step, told.sent = step, fault.sent
            raise told from fault
        return HttpResponse(answer.status, answer.headers, answer.body)


def _client(lookups: Lookups, may: Callable[[Address], bool], context: SSLContext | None) -> HttpClient:
    pool = Pool(
        context,
        TcpTransport(lookups, may, _WIRE, tried=PROVIDER_ADDRESSES_TRIED),
        connections=PROVIDER_CALLS_AT_ONCE,
        kept=PROVIDER_IDLE_CONNECTIONS,
        keep_seconds=PROVIDER_IDLE_SECONDS,
    )
    return HttpClient(pool, _LIMITS)


def unavailable(fault: HttpFault, url: Url) -> ProviderUnavailable:
    """The sentence for a fault, and what to set."""
    host = url.host
    if fault.why in _OF_HOST:
        at, said = _OF_HOST[fault.why]
        return ProviderUnavailable(f"{host} {said}", at=at, detail=fault.detail)
    if fault.why is Why.UNREACHABLE:
        return ProviderUnavailable(f"{host} does not accept connections at port {url.port}", at="address")
    if fault.why is Why.ADDRESS:
        return _not_allowed(fault, url)
    if fault.why is Why.CERTIFICATE:
        hint = "for an authority of your own, name its PEM file in ca of its table of the configuration"
        return ProviderUnavailable(f"the certificate of {host} is not good: {fault.reason}", at="tls", hint=hint)
    if fault.why is Why.REDIRECT:
        return ProviderUnavailable(
            f"{url.authority} redirects{_where(fault.reason)}, which is not followed",
            hint="set the address that it leads to",
        )
    return ProviderUnavailable(f"{url.authority} {_OF_AUTHORITY.get(fault.why, _BROKE_OFF)}")


def _not_allowed(fault: HttpFault, url: Url) -> ProviderUnavailable:
    if url.scheme == "http":
        told, hint = f"{url.host} is not on this host, and plain http goes no further", "use an https URL"
    else:
        shown = ", ".join(str(each) for each in fault.addresses[:3]) or "none"
        told = f"{url.host} has an address that is not public ({shown})"
        hint = "if it is meant, name its network in private_networks of its table of the configuration"
    return ProviderUnavailable(told, at="address", hint=hint)


def _where(location: str) -> str:
    """The host of a redirect, and nothing more of it."""
    try:
        return f" to {parse_url(location).authority}"
    except ValueError:
        return ""
