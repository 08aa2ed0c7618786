"""What a server's operator gives who is to join: one text with the trust domain, a token, and how to know the server.

It is `TRUST_DOMAIN:TOKEN:DIGEST`. The digest is that of the X.509 authorities in the server's bundle, which need not be
carried beside: whoever answers at the server's address is believed if it gives that bundle, and then shows a
certificate that is good by it.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn.errors import InvalidInput, told_as
from sojourn.spiffe.ids import TrustDomain

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")


@dataclass(frozen=True, repr=False)
class JoinString:
    """`digest`: as `digest_of`. The repr hides the token."""

    trust_domain: TrustDomain
    token: str
    digest: str

    def __repr__(self) -> str:
        return f"JoinString({self.trust_domain})"

    def __str__(self) -> str:
        return f"{self.trust_domain}:{self.token}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise InvalidInput, without the text, which may be a token that is good."""
        parts = text.strip().split(":")
        if len(parts) != 3 or not _TOKEN.fullmatch(parts[1]) or not _DIGEST.fullmatch(parts[2]):
            raise InvalidInput(
                "this is not what `sojourn token generate` prints behind `join`: TRUST_DOMAIN:TOKEN:DIGEST"
            )
        with told_as(InvalidInput, "what `sojourn token generate` printed"):
            return cls(TrustDomain.parse(parts[0]), parts[1], parts[2])


def digest_of(authorities: Iterable[x509.Certificate]) -> str:
    """SHA-256 over those of the DER certificates, in their order as bytes; lower-case hex."""
    found = sorted(hashlib.sha256(each.public_bytes(Encoding.DER)).digest() for each in authorities)
    return hashlib.sha256(b"".join(found)).hexdigest()
