"""What a request shows: its token, under which scheme, and its proof of possession."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from sojourn.errors import InvalidInput
from sojourn.errors.oauth import InvalidProof

BEARER: Final = "Bearer"
DPOP: Final = "DPoP"


@dataclass(frozen=True, slots=True)
class Presented:
    """A token and its proof ('' if there is none), as the request has them. The repr hides both."""

    scheme: str  # BEARER | DPOP
    unverified_token: str = field(repr=False)
    unverified_proof: str = field(default="", repr=False)


def presented(headers: Iterable[tuple[str, str]]) -> Presented | None:
    """Read the headers Authorization and DPoP. None if there is no token, or one of another scheme.

    Raise InvalidInput for several Authorization headers, or one that is none (RFC 6750, 3.1); InvalidProof for several
    DPoP headers, and for the scheme DPoP without one (RFC 9449, 4.3 and 7.1).
    """
    tokens, proofs = [], []
    for name, value in headers:
        if name.lower() == "authorization":
            tokens.append(value)
        elif name.lower() == "dpop":
            proofs.append(value.strip(" \t"))
    if len(tokens) > 1:
        raise InvalidInput("request has more than one Authorization header")
    if not tokens:
        return None
    named, _, token = tokens[0].partition(" ")
    scheme = {"bearer": BEARER, "dpop": DPOP}.get(named.lower())
    if scheme is None:
        return None
    token = token.strip(" ")
    if not token or " " in token:
        raise InvalidInput("Authorization header has no single token")
    if len(proofs) > 1:
        raise InvalidProof("request has more than one DPoP header", reason_code="malformed")
    if scheme == DPOP and not any(proofs):
        raise InvalidProof("request has no DPoP header: the scheme DPoP needs a proof", reason_code="malformed")
    if scheme == BEARER and proofs:
        raise InvalidProof("request has a DPoP proof: its scheme is DPoP then, not Bearer", reason_code="wrong_scheme")
    return Presented(scheme, token, proofs[0] if proofs else "")
