"""TLS contexts that verify web certificates (RFC 6125), and agree to nothing weak."""

import ssl
from pathlib import Path

from sojourn.net.tls_key_updates import LimitedContext
from sojourn.net.tls_versions import demand_modern_tls


def web_context(file: Path | None, text: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer, certificates by the system's authorities or by those of a PEM file, or its text, alone.

    Raise OSError, or ValueError for a text without certificates.
    """
    context = LimitedContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies, names too; create_default_context may log keys
    demand_modern_tls(context)
    if file is None and text is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(cafile=file, cadata=text)
    return context
