"""uvicorn's HTTP protocol, with the client's certificate where ASGI has its place for it.

    uvicorn.run(app, http=TlsProtocol, ssl_context_factory=lambda *_: source.server_context(authorize_any()))

uvicorn alone verifies a client's certificate and then hides it, and a guard refuses tokens that are bound to one.
"""

import asyncio
import ssl
from typing import Any

from sojourn.sdk.client.extras import extra

with extra("uvicorn"):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class TlsProtocol(HttpToolsProtocol):
    """Puts the certificate of the connection into `scope["extensions"]["tls"]` of its HTTP requests.

    That is the TLS extension of ASGI: `client_cert_chain`, of which OpenSSL gives the leaf, as PEM; empty if the client
    showed none. WebSockets do not have it.
    """

    _tls: dict[str, Any] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's always is
        super().connection_made(transport)
        self._tls = _extension(transport.get_extra_info("ssl_object"))

    def on_headers_complete(self) -> None:
        if self._tls is not None:
            extensions: dict[str, Any] = self.scope.setdefault("extensions", {})
            extensions["tls"] = dict(self._tls)
        super().on_headers_complete()


def _extension(connection: ssl.SSLObject | None) -> dict[str, Any] | None:
    if connection is None:
        return None
    # Without this mode a certificate is not asked for, or was not verified.
    verified = connection.context.verify_mode in {ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL}
    leaf = connection.getpeercert(binary_form=True) if verified else None
    return {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(leaf)] if leaf else [],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": None,
        "cipher_suite": None,
    }
