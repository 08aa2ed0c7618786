"""Why a request got no answer that is usable: one vocabulary, from which each caller makes its own sentences."""

import ssl
from collections.abc import Iterator, Sequence
from enum import StrEnum

import httpcore2

from sojourn.net.allowed_addresses import Address


class Why(StrEnum):
    """What went wrong, in the order in which it can."""

    NO_ADDRESS = "no_address"  # the name has none
    ADDRESS = "address"  # the name has none that may be connected to
    UNREACHABLE = "unreachable"  # no address accepts a connection, or there is no such socket
    OWNER = "owner"  # a Unix socket is none, or another user's, or another user listens there: `reason` says which
    CONNECT_LATE = "connect_late"
    CERTIFICATE = "certificate"
    TLS = "tls"  # the handshake failed for another reason than the certificate
    TLS_LATE = "tls_late"
    BROKEN_HANDSHAKE = "broken_handshake"  # the connection ended within it, and TLS says nothing
    LATE = "late"  # the request was under way, and its deadline has passed
    BROKEN = "broken"  # the connection ended too soon
    BROKEN_TLS = "broken_tls"  # behind the handshake, which is where a server refuses a client's certificate
    NOT_HTTP = "not_http"
    SWITCHING = "switching"  # the server wants to speak something else than HTTP
    REDIRECT = "redirect"
    HEADERS = "headers"  # too many, or too large
    ENCODED = "encoded"  # packed, which nobody has asked for: it could unpack to any size
    TOO_LARGE = "too_large"  # the body
    ENDLESS = "endless"  # what came on the wire, with interim answers and frames of chunks


class HttpFault(Exception):
    """A request without a usable answer. `sent`: it may have had its effect. `status`: the answer's; 0: none came.

    `reason`: in the words of OpenSSL, the resolver or the server, as `why` has it; `errno`: of the system, or 0.
    `addresses`: for ADDRESS, those that the name has.
    """

    def __init__(
        self, why: Why, *, reason: str = "", errno: int = 0, addresses: Sequence[Address] = (), detail: str = ""
    ) -> None:
        super().__init__(why)
        self.why = why
        self.reason = reason
        self.errno = errno
        self.addresses = tuple(addresses)
        self.detail = detail
        self.sent = False
        self.status = 0


def fault_of(error: Exception) -> HttpFault:
    """What an exception of the HTTP library means, once there is a connection. A HttpFault is itself."""
    if isinstance(error, HttpFault):
        return error
    if isinstance(error, httpcore2.TimeoutException | TimeoutError):
        return HttpFault(Why.LATE, detail=repr(error))
    failed = tls_fault_of(error)
    if failed is not None:
        if failed.why is Why.TLS:
            failed.why = Why.BROKEN_TLS
        return failed
    why = Why.NOT_HTTP if isinstance(error, httpcore2.ProtocolError) else Why.BROKEN
    return HttpFault(why, errno=errno_of(error), detail=repr(error))


def tls_fault_of(error: BaseException) -> HttpFault | None:
    """What TLS did not like, if an exception comes of that."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = str(cause.verify_message or _reason_of(cause) or "it is not good")
            return HttpFault(Why.CERTIFICATE, reason=reason, detail=repr(error))
        if isinstance(cause, ssl.SSLError):
            return HttpFault(Why.TLS, reason=_reason_of(cause), detail=repr(error))
    return None


def errno_of(error: BaseException) -> int:
    """The system's number of what an exception comes of; 0: it has none."""
    return next((cause.errno for cause in _causes(error) if isinstance(cause, OSError) and cause.errno), 0)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, what it was raised from, and so on. The library's pool hides the causes of what it passes on."""
    within: BaseException | None = error
    while within is not None:
        yield within
        within = within.__cause__ or within.__context__


def _reason_of(error: ssl.SSLError) -> str:
    """OpenSSL's word for it; empty for an error that OpenSSL did not raise, which has no such attribute."""
    return str(getattr(error, "reason", None) or "")
