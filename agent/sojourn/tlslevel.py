"""Which TLS is spoken: 1.3, or 1.2 with ephemeral keys and authenticated encryption (RFC 9325, 4.2).

Told to each context, since what one takes by itself is as Python was built: that of Debian leaves it to OpenSSL, which
also takes CBC with SHA-1, and key exchange by RSA.
"""

import ssl
from typing import Final

_TLS_1_2_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


def demand_modern_tls(context: ssl.SSLContext) -> None:
    """Have a context agree to nothing older or weaker, with whichever peer."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS_1_2_CIPHERS)
