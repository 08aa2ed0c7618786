"""TLS contexts that show the present SVID and admit only authorized SPIFFE IDs.

The outer context has no key: for each connection it hands the work to an inner one, which is made anew when the source
has a new version. OpenSSL checks what it can: signatures, the chain to any bundle, times. Inside `do_handshake`
`peer.py` then checks what OpenSSL cannot.
"""

import os
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cryptography.hazmat.primitives.serialization import Encoding

from sojourn.net.tls_key_updates import LimitedContext
from sojourn.net.tls_versions import demand_modern_tls
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import X509Svid
from sojourn.spiffetls.authorize import Authorize
from sojourn.spiffetls.peer import CheckedObject, CheckedSocket, PeerCheck
from sojourn.workloadapi.messages import X509Context


class SourceState(Protocol):
    """What a source knew at one moment."""

    @property
    def version(self) -> int: ...
    @property
    def context(self) -> X509Context | None: ...


class SvidSource(Protocol):
    """Where the present SVID comes from."""

    @property
    def present(self) -> SourceState: ...


class InnerContext(LimitedContext):
    """A plain context with one SVID, and the check of the peers that connect under it."""

    check_peer: Callable[[Sequence[bytes]], SpiffeId | None]  # of a chain; raises SSLCertVerificationError
    outer: "SpiffeContext"

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """What a listening TLS socket calls for each connection it accepts: go back, for the present SVID."""
        return self.outer.wrap_socket(*args, **kwargs)


class SpiffeContext(ssl.SSLContext):
    """An SSLContext for asyncio, uvloop, plain sockets, httpx and uvicorn alike. Safe to use from any thread.

    `wrap_bio` and `wrap_socket` raise ssl.SSLError if the source has no SVID. Its ALPN protocols,
    `options`, `minimum_version` (TLS 1.2 at least) and `maximum_version` have an effect; sessions are never resumed.
    """

    def __new__(cls, source: SvidSource, authorize: Authorize, *, server_side: bool) -> "SpiffeContext":  # noqa: ARG004, PYI034
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
        self.check_hostname = False  # the name of the peer is its SPIFFE ID
        self.verify_mode = ssl.CERT_REQUIRED
        return self

    def __init__(self, source: SvidSource, authorize: Authorize, *, server_side: bool) -> None:
        self._source = source
        self._authorize = authorize
        self._server_side = server_side
        self._alpn: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._made: tuple[tuple[Any, ...], InnerContext] | None = None

    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        super().set_alpn_protocols(alpn_protocols)  # raises for what cannot be one
        self._alpn = tuple(alpn_protocols)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        inner = self._inner(server_side, session)
        return LimitedContext.wrap_bio(inner, incoming, outgoing, server_side, server_hostname)

    def wrap_socket(
        self,
        sock: Any,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        inner = self._inner(server_side, session)
        return ssl.SSLContext.wrap_socket(
            inner, sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname
        )

    def _inner(self, server_side: bool, session: ssl.SSLSession | None) -> InnerContext:
        if server_side != self._server_side:
            raise ValueError("a server context is for servers, and a client context for clients")
        if session is not None:
            raise ValueError("sessions are not resumed: each connection proves its peer anew")
        present = self._source.present
        if present.context is None:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "there is no X.509-SVID to use")
        key = (present.version, self._alpn, self.options, self.minimum_version, self.maximum_version)
        with self._lock:
            if self._made is None or self._made[0] != key:
                self._made = (key, self._make(present.context))
            return self._made[1]

    def _make(self, context: X509Context) -> InnerContext:
        inner = InnerContext(ssl.PROTOCOL_TLS_SERVER if self._server_side else ssl.PROTOCOL_TLS_CLIENT)
        inner.options |= self.options | ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        if not self.options & getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0):
            inner.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        demand_modern_tls(inner)
        inner.minimum_version = max(self.minimum_version, inner.minimum_version)
        inner.maximum_version = self.maximum_version
        inner.check_hostname = False
        inner.verify_mode = ssl.CERT_REQUIRED
        inner.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a bundle may hold an authority that is not self-signed
        if self._server_side:
            inner.num_tickets = 0
        authorities = {each.public_bytes(Encoding.DER) for bundle in context.bundles.values() for each in bundle}
        if authorities:
            inner.load_verify_locations(cadata=b"".join(sorted(authorities)))
        self.complete(inner, context)
        if self._alpn:
            inner.set_alpn_protocols(list(self._alpn))
        inner.sslobject_class = CheckedObject
        inner.sslsocket_class = CheckedSocket
        inner.outer = self
        return inner

    def complete(self, inner: InnerContext, context: X509Context) -> None:
        """Say what a context shows, and how it checks its peers."""
        load_svid(inner, context.default)
        inner.check_peer = PeerCheck(context, self._authorize)


class UnshownContext(SpiffeContext):
    """A client's context that shows no certificate of its own: where we have none yet, or have to show none."""

    def complete(self, inner: InnerContext, context: X509Context) -> None:
        inner.check_peer = PeerCheck(context, self._authorize)


def load_svid(context: ssl.SSLContext, svid: X509Svid) -> None:
    """Load chain and key into a context."""
    load_pem(context, svid.chain_pem + svid.key_pem)


def load_pem(context: ssl.SSLContext, chain_and_key: bytes) -> None:
    """Load a chain and its key into a context. They pass through memory only, never through a file on disk."""
    descriptor = os.memfd_create("sojourn-svid", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(chain_and_key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
