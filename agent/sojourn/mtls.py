"""Task tokens that are bound to this process's own X.509-SVID (RFC 8705)."""

from sojourn.sdk.task.mtls_tokens import CertificateTokens

__all__ = [
    "CertificateTokens",
]
