"""The check of a TLS peer, inside the handshake."""

import contextlib
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from cryptography import x509

from sojourn.errors import SojournError
from sojourn.limits import TLS_HANDSHAKE_MAX_BYTES
from sojourn.net.tls_key_updates import Limited
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import spiffe_id_of, verify_chain
from sojourn.spiffetls.authorize import Authorize
from sojourn.workloadapi.messages import X509Context

_DER = 2  # _ssl.ENCODING_DER
_UNSPECIFIED = 1  # X509_V_ERR_UNSPECIFIED


class PeerCheck:
    """Decides on a peer's chain under one state of the bundles."""

    def __init__(self, context: X509Context, authorize: Authorize) -> None:
        self._context = context
        self._authorize = authorize

    def __call__(self, chain: Sequence[bytes]) -> SpiffeId:
        """Return the SPIFFE ID of a chain of DER certificates, leaf first; raise SSLCertVerificationError."""
        if not chain:
            refuse("peer showed no certificate")
        try:
            certificates = [x509.load_der_x509_certificate(der) for der in chain]
            domain = spiffe_id_of(certificates[0]).trust_domain
            # Only the bundle of the peer's own trust domain counts: keys of A never verify for B.
            authorities = self._context.bundles.get(domain, ())
            peer = verify_chain(certificates, authorities, domain, datetime.now(UTC))
            revoked = any((each.issuer.public_bytes(), each.serial_number) in self._revoked for each in certificates)
        except SojournError as error:
            refuse(error.public)
        except Exception:  # noqa: BLE001  # it parses hostile input
            refuse("peer's certificate cannot be parsed")
        if revoked:
            refuse(f"certificate of {str(peer)!r} is revoked")
        allowed = False
        with contextlib.suppress(Exception):  # an authorizer that fails has not said yes
            allowed = self._authorize(peer) is True
        if not allowed:
            refuse(f"peer {str(peer)!r} is not authorized here")
        return peer

    @property
    def _revoked(self) -> frozenset[tuple[bytes, int]]:
        return self._context.revoked


class _Checked(Limited):
    """What both kinds of TLS connection share. No byte passes before the peer was checked."""

    peer_spiffe_id: SpiffeId | None = None  # set when the handshake is done
    peer_chain: tuple[bytes, ...] = ()  # DER, leaf first; set with it
    checked = False
    _sslobj: Any
    context: Any

    def _check_peer(self) -> None:
        if not self.checked:
            chain = _chain(self._sslobj)
            self.peer_spiffe_id = self.context.check_peer(chain)
            self.peer_chain = tuple(chain)
            self.checked = True

    def _require_checked(self) -> None:
        # OpenSSL would do a handshake of its own inside the first read or write, which nobody checks.
        if self._sslobj is not None and not self.checked:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the handshake is not done: call do_handshake first")

    def read(self, *args: Any, **kwargs: Any) -> Any:
        self._require_checked()
        return super().read(*args, **kwargs)

    def write(self, data: Any) -> int:
        self._require_checked()
        return super().write(data)  # type: ignore[misc,no-any-return]


class CheckedObject(_Checked, ssl.SSLObject):
    """An SSLObject whose handshake checks the peer. What a client says in it has a limit: OpenSSL would take 100 KiB of
    certificates, and look at all of them before it says that nobody knows the first.
    """

    _left = TLS_HANDSHAKE_MAX_BYTES

    def do_handshake(self) -> None:
        if self.incoming is None or not self.server_side:
            super().do_handshake()
        else:
            self._within_limit(self.incoming)
        self._check_peer()

    def _within_limit(self, incoming: ssl.MemoryBIO) -> None:
        behind = b""
        if incoming.pending > self._left:  # a request may have come behind the handshake
            came = incoming.read()
            behind = came[self._left :]
            incoming.write(came[: self._left])
        shown = incoming.pending
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            if behind:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the client's handshake is too long") from None
            raise
        finally:
            self._left -= shown - incoming.pending
            if behind:
                incoming.write(behind)


class CheckedSocket(_Checked, ssl.SSLSocket):
    """An SSLSocket whose handshake checks the peer."""

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        try:
            self._check_peer()
        except ssl.SSLError:
            self.close()
            raise

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._require_checked()
        return super().send(*args, **kwargs)


def _chain(sslobj: Any) -> list[bytes]:
    """The certificates that the peer sent, leaf first. Public as SSLObject.get_unverified_chain since Python 3.13.

    A server is given None for a client that sent none.
    """
    sent = sslobj.get_unverified_chain() or ()
    return [certificate.public_bytes(_DER) for certificate in sent if certificate is not None]


def refuse(sentence: str) -> NoReturn:
    error = ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, sentence)
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    error.verify_code = _UNSPECIFIED
    error.verify_message = sentence
    raise error
