"""Sender-constrained tokens (RFC 9449, RFC 8705): to what a token is bound, and what its sender proves to hold."""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from sojourn.errors import InvalidInput, InvalidToken
from sojourn.errors.oauth import InvalidProof
from sojourn.tasktoken import dpop
from sojourn.tasktoken.grants import DIGEST

JKT, X5T = "jkt", "x5t#S256"  # how a token is bound (RFC 9449, 6.1; RFC 8705, 3.1)


@dataclass(frozen=True, slots=True)
class Binding:
    """To what a token is bound: the thumbprint (SHA-256, base64url) of a key (JKT) or of a certificate (X5T)."""

    kind: str
    thumbprint: str
    not_after: datetime | None = field(default=None, compare=False)  # of a certificate: its tokens end with it

    @classmethod
    def to_certificate(cls, der: bytes, not_after: datetime) -> Self:
        """For a token that is to be issued."""
        return cls(X5T, thumbprint_of(der), not_after)

    def claim(self) -> dict[str, str]:
        return {self.kind: self.thumbprint}


@dataclass(frozen=True, slots=True)
class Proven:
    """What the sender of a token has proved to hold, as thumbprints: by a DPoP proof, by a TLS connection. '': nothing.

    A request with a proof has a token that is bound to the proof's key, and no other.
    """

    jkt: str = ""
    x5t: str = ""

    def check(self, binding: Binding | None) -> None:
        """Raise InvalidToken unless the token with this binding is its sender's."""
        if binding is None:
            if self.jkt:
                raise InvalidToken("token is not bound to the key of the DPoP proof", reason_code="wrong_binding")
            return
        held = {JKT: self.jkt, X5T: self.x5t}.get(binding.kind, "")
        if not held or (self.jkt and binding.kind != JKT):
            what = "a DPoP proof" if binding.kind == JKT else "the certificate that it is bound to"
            raise InvalidToken(
                f"token is bound, and came without {what}", reason_code="unproved_binding", detail=binding.kind
            )
        if not secrets.compare_digest(held.encode(), binding.thumbprint.encode()):
            raise InvalidToken("token is bound to something that its sender does not hold", reason_code="wrong_binding")


UNPROVEN = Proven()


def thumbprint_of(certificate_der: bytes) -> str:
    """The `x5t#S256` of a certificate."""
    return base64.urlsafe_b64encode(hashlib.sha256(certificate_der).digest()).rstrip(b"=").decode()


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
