"""What gRPC's callers are answered for an error: status, message, and metadata.

An error's stable code goes into the trailing metadata `sojourn-code`, and the nonce that a DPoP proof needs into
`dpop-nonce`.
"""

import uuid
from dataclasses import dataclass

from sojourn.errors import SojournError
from sojourn.errors.oauth import NonceNeeded
from sojourn.http2.statuses import STATUSES


@dataclass(frozen=True, slots=True)
class GrpcStatus:
    """What a call failed with: a name of STATUSES, what its caller may read, and our code."""

    name: str
    message: str
    code: str
    nonce: str = ""
    reference: str = ""  # of what nobody foresaw: the log has it under this, and its caller is told

    @classmethod
    def of(cls, error: Exception) -> "GrpcStatus":
        """INTERNAL for whatever is no error of ours, of which callers learn nothing."""
        if isinstance(error, SojournError):
            nonce = error.nonce if isinstance(error, NonceNeeded) else ""
            return cls(error.grpc_status, error.public, error.code, nonce)
        reference = uuid.uuid4().hex[:12]
        return cls("INTERNAL", f"internal error; the log has it under {reference}", "internal", reference=reference)

    @property
    def number(self) -> int:
        return STATUSES[self.name]

    def metadata(self) -> list[tuple[str, str]]:
        """The trailing metadata."""
        return [("sojourn-code", self.code), *([("dpop-nonce", self.nonce)] if self.nonce else [])]
