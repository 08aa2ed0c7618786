"""TLS connections whose other end may update its key now and then, but not without end (RFC 8446, 4.6.3).

An update is 27 bytes, and costs whoever gets it some 30 microseconds. OpenSSL knows no limit, and works off all that
have come before it gives anything back.
"""

import ssl
from time import monotonic
from typing import Any, Final

from sojourn.limits import TLS_KEY_UPDATES, TLS_KEY_UPDATES_SECONDS

_HANDSHAKE: Final = 22  # a record's content (RFC 8446, B.1)
_KEY_UPDATE: Final = 24  # a message's type (B.3)
# Who is told of each message, with numbers as they are: what `ssl` has for it makes enums of all of them.
_ON_MESSAGE: Final[Any] = super(ssl.SSLContext, ssl.SSLContext)._msg_callback  # type: ignore[misc]


class Limited:
    """A part of a TLS connection: reading fails once the other end has updated its key too often."""

    incoming: ssl.MemoryBIO | None = None  # what has come and is not read yet; None: it stays with the socket
    key_updates = 0  # by the other end, since
    counted_from = 0.0

    def read(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read(*args, **kwargs)  # type: ignore[misc]  # of the kind of connection
        finally:
            if self.key_updates > TLS_KEY_UPDATES:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the peer updates its key again and again")


class LimitedObject(Limited, ssl.SSLObject):
    """An SSLObject of a LimitedContext. What has come behind an update that is too many is not looked at."""


class LimitedContext(ssl.SSLContext):
    """A context whose connections are Limited. A socket of a thread of its own is limited as it reads, if it is told to
    be (`sslsocket_class`).
    """

    sslobject_class: type[ssl.SSLObject] = LimitedObject

    def __init__(self, _protocol: int) -> None:
        _ON_MESSAGE.__set__(self, _count)

    def wrap_bio(self, incoming: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, *args, **kwargs)
        if isinstance(made, Limited):
            made.incoming = incoming
        return made


def _count(connection: object, direction: str, _version: int, content: int, message: int, _data: bytes) -> None:
    if content != _HANDSHAKE or message != _KEY_UPDATE or direction != "read" or not isinstance(connection, Limited):
        return
    now = monotonic()
    if now > connection.counted_from + TLS_KEY_UPDATES_SECONDS:
        connection.key_updates, connection.counted_from = 0, now
    connection.key_updates += 1
    if connection.key_updates > TLS_KEY_UPDATES and connection.incoming is not None:
        connection.incoming.read()
