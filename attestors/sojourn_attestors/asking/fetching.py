"""Asks a kubelet or the like over HTTP, through TLS, with a limit to everything; what an answer in JSON holds.

Whatever answers there may be slow, wrong, huge or gone: that is an AttestationFailed that says so, and nothing else.
"""

import asyncio
import errno
import json
import os
import ssl
from collections.abc import Mapping
from typing import Any, Final

import httpx
from sojourn.errors import AttestationFailed

ANSWER_MAX_BYTES: Final = 32 * 1024 * 1024  # 500 pods with all their fields are about 10 MiB
_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EACCES, errno.EPERM})
_HUNG_UP: Final = (httpx.RemoteProtocolError, httpx.ReadError)
_CONNECTIONS: Final = httpx.Limits(max_connections=8, max_keepalive_connections=4, keepalive_expiry=30)


class NotThere(AttestationFailed):
    """There is no such thing (404)."""


class Unwell(AttestationFailed):
    """Nobody answers there, or they hung up before the end, or they say themselves that they cannot (5xx)."""


class Late(AttestationFailed):
    """There was no whole answer in time."""


class HttpClient:
    """Asks one server. Redirects are not followed; proxies of the environment are not used."""

    def __init__(
        self,
        what: str,
        url: str,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> None:
        """`what` names the server in errors, such as `the kubelet`. `url`: its base. `tls`: how its certificate is
        checked, and ours shown, for https; `server_name`: whose it must be, if it is not the URL's host.
        """
        self._what = what
        self._extensions = {"sni_hostname": server_name} if server_name else {}
        self._client = httpx.AsyncClient(
            base_url=url,
            transport=httpx.AsyncHTTPTransport(
                verify=tls or ssl.create_default_context(), limits=_CONNECTIONS, trust_env=False
            ),
            timeout=None,  # noqa: S113  # the caller's deadline is the only one, and holds for the whole
        )

    async def get(self, path: str, seconds: float, *, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """The status and the whole of what is at `path`, within `seconds`. Raise Late or Unwell if there is none."""
        all_headers = {"accept-encoding": "identity", **(headers or {})}
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream("GET", path, headers=all_headers, extensions=self._extensions) as answer,
            ):
                return answer.status_code, await self._body(answer)
        except TimeoutError:
            raise Late(f"{self._what} did not answer within {seconds:.2g} s") from None
        except (httpx.HTTPError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise Unwell(
                f"{self._what} cannot be asked{self._why(error)}", detail=f"{type(error).__name__}: {reason}"
            ) from error

    async def close(self) -> None:
        await self._client.aclose()

    def _why(self, error: BaseException) -> str:
        """What is to be seen to, as far as that is clear, behind a colon."""
        at = f"{self._client.base_url.host}:{self._client.base_url.port}"
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return f": its certificate is not accepted: {cause.verify_message}"
            if isinstance(cause, ssl.SSLError):
                return f": no TLS with {at}: {cause.reason or 'it hung up'}"
            if isinstance(cause, ConnectionRefusedError):
                return f": nobody listens at {at}"
            if isinstance(cause, OSError) and cause.errno in _UNREACHABLE:
                return f": {at} cannot be reached: {os.strerror(cause.errno)}"
            cause = cause.__cause__ or cause.__context__
        return f": at {at} nobody speaks HTTP, or they hung up" if isinstance(error, _HUNG_UP) else ""

    async def _body(self, answer: httpx.Response) -> bytes:
        body = bytearray()
        async for part in answer.aiter_raw():  # nothing compressed was asked for: what is, is not unpacked
            body += part
            if len(body) > ANSWER_MAX_BYTES:
                raise AttestationFailed(f"{self._what} answered more than {ANSWER_MAX_BYTES} bytes")
        return bytes(body)


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
    if status == httpx.codes.NOT_FOUND:
        raise NotThere(f"{what} knows nothing of it")
    if status != httpx.codes.OK:
        kind = Unwell if httpx.codes.is_server_error(status) else AttestationFailed
        raise kind(f"{what} answered {status}", detail=repr(body[:200]))
