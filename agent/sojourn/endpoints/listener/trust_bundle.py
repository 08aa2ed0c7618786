"""The door for those who are to trust this agent: discovery, keys and bundle over HTTPS, and nothing else.

With a certificate that was given it is the `https_web` profile of SPIFFE Federation, without one `https_spiffe`. It
asks nobody for a certificate, and answers anybody, as all that it tells is public.
"""

from contextlib import AsyncExitStack
from typing import Final

from starlette.types import Receive, Scope, Send

from sojourn.endpoints.api.trust_documents import TrustDocuments
from sojourn.endpoints.http1.scope import SENDER
from sojourn.endpoints.listener.https import WebDoor, open_web
from sojourn.endpoints.listener.own_svid import AgentSvid
from sojourn.endpoints.listener.tls import Listener, TlsPeer
from sojourn.limits import (
    TRUST_CONNECTIONS,
    TRUST_CONNECTIONS_PER_ADDRESS,
    TRUST_CONNECTIONS_PER_SECOND,
    TRUST_DESCRIPTORS_SHARE,
    TRUST_REQUESTS_PER_SECOND,
)
from sojourn.quota.rate import Rate
from sojourn.runtime.clock import Clock
from sojourn.settings.tables import ListenConfig

_METHODS: Final = ("GET", "HEAD")
Headers = list[tuple[bytes, bytes]]


class TrustApp:
    """Answers with the documents. Paths are compared byte for byte, as they were sent."""

    def __init__(self, documents: TrustDocuments) -> None:
        self._documents = documents
        self._allowance = Rate(TRUST_REQUESTS_PER_SECOND)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive  # a request's content, which none should have, is not read
        status, headers, body = self._answer(scope)
        length = [] if status == 304 else [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, scope: Scope) -> tuple[int, Headers, bytes]:
        if not self._allowance.allow(scope[SENDER].who):
            return 429, [(b"retry-after", b"1")], b""
        document = self._documents.all().get(scope["raw_path"].decode("latin-1"))
        if document is None:
            return 404, [], b""
        if scope["method"] not in _METHODS:
            return 405, [(b"allow", ", ".join(_METHODS).encode())], b""
        headers = [
            (b"etag", document.etag.encode()),
            (b"cache-control", f"public, max-age={document.max_age_seconds}".encode()),
        ]
        if _has(scope["headers"], document.etag):
            return 304, headers, b""
        return 200, [(b"content-type", b"application/json"), *headers], document.body


def _has(headers: Headers, etag: str) -> bool:
    """Whether the client has the document already (RFC 9110, 13.1.2)."""
    values = [value.decode("latin-1") for name, value in headers if name == b"if-none-match"]
    tags = [tag.strip().removeprefix("W/") for value in values for tag in value.split(",")]
    return etag in tags or tags == ["*"]


class TrustDoor(WebDoor):
    """The listener and its connections. Whoever comes is nobody, and an address has its share and no more."""

    name = "trust"

    new_per_second = TRUST_CONNECTIONS_PER_SECOND

    def places(self, peer: TlsPeer, connections: int) -> int:
        del peer
        return self.places_of_nobody(connections)

    def places_of_nobody(self, connections: int) -> int:
        return min(TRUST_CONNECTIONS_PER_ADDRESS, max(1, connections // 2))


def open_trust(
    listen: ListenConfig, door: TrustDoor, own: AgentSvid, clock: Clock, descriptors: int, stack: AsyncExitStack
) -> list[Listener]:
    """Open the listener, if there is to be one. Raise CannotStart.

    Of `descriptors` it takes TRUST_DESCRIPTORS_SHARE.
    """
    if listen.trust is None:
        return []
    return [
        open_web(
            "trust",
            listen.trust,
            (listen.trust_certificate, listen.trust_key),
            door,
            own,
            None,
            min(TRUST_CONNECTIONS, max(1, int(descriptors * TRUST_DESCRIPTORS_SHARE))),
            clock,
            stack,
        )
    ]
