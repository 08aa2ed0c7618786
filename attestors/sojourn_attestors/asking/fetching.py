"""Asks a kubelet or the like over HTTP, through TLS, with a limit to everything; what an answer in JSON holds.

Whatever answers there may be slow, wrong, huge or gone: that is an AttestationFailed that says so, and nothing else.
"""

import errno
import json
import os
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NoReturn

from sojourn.errors import AttestationFailed
from sojourn.httpclient.client import AnswerLimits, HttpClient
from sojourn.httpclient.faults import HttpFault, Why
from sojourn.httpclient.lookups import Lookups
from sojourn.httpclient.pool import Pool
from sojourn.httpclient.tcp import TcpTransport
from sojourn.httpclient.wire import WireLimits
from sojourn.net.urls import Url

ANSWER_MAX_BYTES: Final = 32 * 1024 * 1024  # 500 pods with all their fields are about 10 MiB
_WIRE: Final = WireLimits(64 * 1024, 2 * ANSWER_MAX_BYTES)
_LOOKUPS_AT_ONCE: Final = 2
_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EACCES, errno.EPERM})


class NotThere(AttestationFailed):
    """There is no such thing (404)."""


class Unwell(AttestationFailed):
    """Nobody answers there, or they hung up before the end, or they say themselves that they cannot (5xx)."""


class Late(AttestationFailed):
    """There was no whole answer in time."""


class KubeletClient:
    """Asks one server. Redirects are not followed; proxies of the environment are not used."""

    def __init__(self, what: str, host: str, port: int, *, tls: ssl.SSLContext | None = None, name: str = "") -> None:
        """`what` names the server in errors, such as `the kubelet`. `tls`: how its certificate is checked, and ours
        shown; None: plain HTTP. `name`: whose the certificate must be, if it is not the host.
        """
        self._what = what
        self._scheme, self._host, self._port, self._name = "https" if tls else "http", host, port, name
        transport = TcpTransport(Lookups(_LOOKUPS_AT_ONCE), lambda _: True, _WIRE)
        self._client = HttpClient(
            Pool(tls, transport, connections=8, kept=4, keep_seconds=30), AnswerLimits(ANSWER_MAX_BYTES)
        )

    async def get(self, path: str, seconds: float, *, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """The status and the whole of what is at `path`, within `seconds`. Raise AttestationFailed, Late or Unwell."""
        url = Url(self._scheme, self._host, self._port, path)
        try:
            answer = await self._client.ask("GET", url, headers or {}, seconds=seconds, server_name=self._name)
        except HttpFault as fault:
            raise_for(fault, self._what, seconds, ANSWER_MAX_BYTES, self._cannot)
        return answer.status, answer.body

    async def close(self) -> None:
        await self._client.close()

    def _cannot(self, fault: HttpFault) -> str:
        """What is to be seen to, as far as that is clear, behind a colon."""
        at = f"{self._host}:{self._port}"
        if fault.why is Why.CERTIFICATE:
            return f"cannot be asked: its certificate is not accepted: {fault.reason}"
        if fault.why in {Why.TLS, Why.BROKEN_TLS}:
            return f"cannot be asked: no TLS with {at}: {fault.reason or 'it hung up'}"
        if fault.errno == errno.ECONNREFUSED:
            return f"cannot be asked: nobody listens at {at}"
        if fault.errno in _UNREACHABLE:
            return f"cannot be asked: {at} cannot be reached: {os.strerror(fault.errno)}"
        if fault.why in {Why.BROKEN, Why.NOT_HTTP}:
            return f"cannot be asked: at {at} nobody speaks HTTP, or they hung up"
        return "cannot be asked"


def raise_for(
    fault: HttpFault, what: str, seconds: float, body_bytes: int, cannot: Callable[[HttpFault], str]
) -> NoReturn:
    """Raise AttestationFailed, Late or Unwell for a fault of a request to `what`, which had `seconds` and might answer
    `body_bytes`. `cannot`: what is said behind its name if it is unwell.
    """
    match fault.why:
        case Why.LATE | Why.CONNECT_LATE | Why.TLS_LATE:
            raise Late(f"{what} did not answer within {seconds:.2g} s") from None
        case Why.TOO_LARGE | Why.ENDLESS:
            raise AttestationFailed(f"{what} answered more than {body_bytes} bytes") from fault
        case Why.OWNER:
            raise AttestationFailed(fault.reason) from fault
        case Why.REDIRECT | Why.SWITCHING | Why.ENCODED:
            succeeded(what, fault.status, b"")
            raise AttestationFailed(f"{what} answered what is not JSON", detail="it is compressed") from fault
    raise Unwell(f"{what} {cannot(fault)}", detail=fault.detail) from fault


def document(what: str, status: int, body: bytes) -> Any:
    """The JSON document of a whole answer. Raise NotThere, Unwell or AttestationFailed if it is none.

    `what`: who answered.
    """
    succeeded(what, status, body)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AttestationFailed(f"{what} answered what is not JSON", detail=repr(body[:200])) from error


def succeeded(what: str, status: int, body: bytes) -> None:
    """Raise NotThere, Unwell or AttestationFailed unless that is the status of success."""
    if status == HTTPStatus.NOT_FOUND:
        raise NotThere(f"{what} knows nothing of it")
    if status != HTTPStatus.OK:
        kind = Unwell if 500 <= status < 600 else AttestationFailed
        raise kind(f"{what} answered {status}", detail=repr(body[:200]))
