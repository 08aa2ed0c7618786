"""What gRPC's callers are answered for an error: status, message, and metadata.

An error's stable code goes into the trailing metadata `sojourn-code`, the nonce that a DPoP proof needs into
`dpop-nonce`, and how a person has to log in into `acr-values` and `max-age` (RFC 9470, 3). Why a server does not take a
node for one of its own is in `grpc-status-details-bin`, as SPIRE has it.
"""

import uuid
from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from sojourn._pb.google.rpc.status_pb2 import Status
from sojourn._pb.spire.api.server.node.v1.node_pb2 import PermissionDeniedDetails
from sojourn.errors import AgentDenied, SojournError
from sojourn.errors.oauth import NonceNeeded
from sojourn.errors.people import PersonRefused
from sojourn.http2.statuses import STATUSES

_DENIED_FOR: Final = {"expired": 1, "not_attested": 2, "not_active": 3, "banned": 4, "must_reattest": 5}
_DETAILS: Final = "type.googleapis.com/spire.api.types.PermissionDeniedDetails"


@dataclass(frozen=True, slots=True)
class GrpcStatus:
    """What a call failed with: a name of STATUSES, what its caller may read, and our code."""

    name: str
    message: str
    code: str
    nonce: str = ""
    login: tuple[tuple[str, str], ...] = ()
    denied_for: int = 0  # why a server takes a node for none, as SPIRE numbers it; 0: it is not about that
    reference: str = ""  # of what nobody foresaw: the log has it under this, and its caller is told

    @classmethod
    def of(cls, error: Exception) -> "GrpcStatus":
        """INTERNAL for whatever is no error of ours, of which callers learn nothing."""
        if isinstance(error, SojournError):
            nonce = error.nonce if isinstance(error, NonceNeeded) else ""
            login = _login_of(error) if isinstance(error, PersonRefused) else ()
            denied_for = _DENIED_FOR[error.reason_code] if isinstance(error, AgentDenied) else 0
            return cls(error.grpc_status, error.public, error.code, nonce, login, denied_for)
        reference = uuid.uuid4().hex[:12]
        return cls("INTERNAL", f"internal error; the log has it under {reference}", "internal", reference=reference)

    @property
    def number(self) -> int:
        return STATUSES[self.name]

    def metadata(self) -> list[tuple[str, str]]:
        """The trailing metadata."""
        dpop = [("dpop-nonce", self.nonce)] if self.nonce else []
        return [("sojourn-code", self.code), *dpop, *self.login, *self._details()]

    def _details(self) -> list[tuple[str, str]]:
        """The status once more, with the detail by which SPIRE's agents know what to do."""
        if not self.denied_for:
            return []
        whole = Status(code=self.number, message=self.message)
        packed = PermissionDeniedDetails(reason=self.denied_for).SerializeToString()
        whole.details.add(type_url=_DETAILS, value=packed)
        return [("grpc-status-details-bin", b64encode(whole.SerializeToString()).decode().rstrip("="))]


def _login_of(error: PersonRefused) -> tuple[tuple[str, str], ...]:
    """How the person has to log in, as metadata: values that may stand there, apart by blanks; seconds."""
    values = " ".join(each for each in error.acr_values if each.isascii() and each.isprintable())
    age = "" if error.max_age is None else str(error.max_age)
    return tuple((name, value) for name, value in (("acr-values", values), ("max-age", age)) if value)
