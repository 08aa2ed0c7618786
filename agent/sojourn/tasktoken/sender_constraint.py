"""What a request with a token has shown of its sender, and what that proves."""

from dataclasses import dataclass, field
from datetime import datetime

from sojourn.errors import InvalidInput
from sojourn.errors.oauth import InvalidProof
from sojourn.tasktoken import dpop
from sojourn.tasktoken.grants import DIGEST
from sojourn.tasktoken.tokens import Proven, thumbprint_of


@dataclass(frozen=True, slots=True)
class Sender:
    """Either what came with the token, or, as `jkt` and `x5t`, the thumbprints of what somebody else has checked."""

    dpop_proof: str = field(default="", repr=False)  # the one header `DPoP`
    method: str = ""
    url: str = ""  # of the request, as its sender knows it
    client_certificate: bytes = field(default=b"", repr=False)  # DER, of the TLS connection: never of a header
    jkt: str = ""
    x5t: str = ""

    def check(self) -> None:
        """Raise InvalidInput for what says two things of one sender, or for no thumbprint."""
        if (self.dpop_proof and self.jkt) or (self.client_certificate and self.x5t):
            raise InvalidInput("sender has a proof or a certificate, and a thumbprint in its place too")
        if any(each and not DIGEST.fullmatch(each) for each in (self.jkt, self.x5t)):
            raise InvalidInput("sender has a thumbprint that is not a SHA-256 digest in base64url")

    def prove(self, token: str, now: datetime) -> tuple[Proven, dpop.Proof | None]:
        """What is proved, and by which proof: that is good, and still to be claimed. Raise InvalidProof."""
        x5t = thumbprint_of(self.client_certificate) if self.client_certificate else self.x5t
        if not self.dpop_proof:
            return Proven(jkt=self.jkt, x5t=x5t), None
        if not self.method or not self.url:
            raise InvalidProof("method and url of the request must be given with its proof", reason_code="malformed")
        proof = dpop.read(self.dpop_proof, method=self.method, url=self.url, now=now, token=token)
        return Proven(jkt=proof.jkt, x5t=x5t), proof


UNKNOWN = Sender()
