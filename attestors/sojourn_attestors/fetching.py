"""Asks a container engine or a kubelet: JSON over HTTP, through a Unix socket or TLS, with a limit to everything.

Whatever answers there may be slow, wrong, huge or gone: that is an AttestationFailed that says so, and nothing else.
"""

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any, Final

import httpx
from sojourn.errors import AttestationFailed

ANSWER_MAX_BYTES: Final = 32 * 1024 * 1024  # 500 pods with all their fields are about 10 MiB
_CONNECTIONS: Final = httpx.Limits(max_connections=8, max_keepalive_connections=4, keepalive_expiry=30)


class Answered(AttestationFailed):
    """It answered with an HTTP status that is no success."""

    def __init__(self, reason: str, status: int, *, detail: str = "") -> None:
        super().__init__(reason, detail=detail)
        self.status = status


class NotThere(Answered):
    """There is no such thing (404)."""


class JsonClient:
    """Fetches JSON documents from one server. Redirects are not followed; proxies of the environment are not used."""

    def __init__(
        self,
        what: str,
        url: str,
        *,
        socket: str = "",
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        answer_max_bytes: int = ANSWER_MAX_BYTES,
    ) -> None:
        """`what` names the server in errors, such as `the container engine`. `url`: its base. `socket`: a path, if it
        listens on a Unix socket. `tls`: how its certificate is checked, and ours shown, for https; `server_name`: whose
        it must be, if it is not the URL's host.
        """
        self._what = what
        self._limit = answer_max_bytes
        self._extensions = {"sni_hostname": server_name} if server_name else {}
        self._client = httpx.AsyncClient(
            base_url=url,
            transport=httpx.AsyncHTTPTransport(
                verify=tls or ssl.create_default_context(), uds=socket or None, limits=_CONNECTIONS, trust_env=False
            ),
            timeout=None,  # noqa: S113  # the caller's deadline is the only one, and holds for the whole
        )

    async def get(self, path: str, seconds: float, *, headers: Mapping[str, str] | None = None) -> Any:
        """The document at `path`, within `seconds`. Raise NotThere, or AttestationFailed if it cannot be had."""
        body = await self.fetch(path, seconds, headers=headers)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise AttestationFailed(f"{self._what} answered what is not JSON", detail=repr(body[:200])) from error

    async def fetch(self, path: str, seconds: float, *, headers: Mapping[str, str] | None = None) -> bytes:
        """As `get`, but as it came. For what takes long to read: that is better done in a thread."""
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream(
                    "GET",
                    path,
                    headers={"accept-encoding": "identity", **(headers or {})},
                    extensions=self._extensions,
                ) as answer,
            ):
                body = await self._body(answer)
        except TimeoutError:
            raise AttestationFailed(f"{self._what} did not answer within {seconds:g} s") from None
        except (httpx.HTTPError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise AttestationFailed(
                f"{self._what} cannot be asked", detail=f"{type(error).__name__}: {reason}"
            ) from error
        status = answer.status_code
        if status == httpx.codes.NOT_FOUND:
            raise NotThere(f"{self._what} knows nothing of it", status)
        if status != httpx.codes.OK:
            raise Answered(f"{self._what} answered {status}", status, detail=repr(body[:200]))
        return body

    async def close(self) -> None:
        await self._client.aclose()

    async def _body(self, answer: httpx.Response) -> bytes:
        body = bytearray()
        async for part in answer.aiter_raw():  # nothing compressed was asked for: what is, is not unpacked
            body += part
            if len(body) > self._limit:
                raise AttestationFailed(f"{self._what} answered more than {self._limit} bytes")
        return bytes(body)
