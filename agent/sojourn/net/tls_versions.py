"""Which TLS is spoken: 1.3, or 1.2 with ephemeral keys and authenticated encryption (RFC 9325, 4.2).

Told to each context, since what one takes by itself is as Python was built: that of Debian leaves it to OpenSSL, which
also takes CBC with SHA-1, and key exchange by RSA.
"""

import ssl
from typing import Any, Final

_TLS_1_2_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


def client_context(**authorities: Any) -> ssl.SSLContext:
    """A context that trusts these `authorities` (as of ssl.create_default_context), or those of the system.

    Each of them is believed, and no form of certificate is refused that other clients take: newer versions of Python
    are stricter by themselves in the latter, and older ones in the former.
    """
    context = ssl.create_default_context(**authorities)
    context.verify_flags = context.verify_flags & ~ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def demand_modern_tls(context: ssl.SSLContext) -> None:
    """Have a context agree to nothing older or weaker, with whichever peer."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS_1_2_CIPHERS)
