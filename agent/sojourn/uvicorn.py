"""uvicorn with the client's certificate where ASGI has its place for it. Needs uvicorn."""

from sojourn.sdk.integrations.uvicorn_tls import TlsProtocol

__all__ = [
    "TlsProtocol",
]
