"""What proves to a server which node somebody is."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from sojourn.attestation.selectors import Selector
from sojourn.errors import InvalidSpiffeId
from sojourn.server.node_records import BoundKey
from sojourn.spiffe.ids import AGENT_PATH, SpiffeId, TrustDomain

Challenge = Callable[[bytes], Awaitable[bytes]]
"""Sends a challenge to who wants to be a node, and returns what comes back."""


@dataclass(frozen=True, slots=True)
class Attested:
    """Who it is. `reattestable`: whether it can prove that again, and renews its SVID by doing so.

    `name`: what an operator has called it; empty: nobody has. `bound`: what is known of its key from now on, if a token
    has bound it; `seen`: what was known when that was made of it.
    """

    spiffe_id: SpiffeId
    selectors: frozenset[Selector]
    reattestable: bool
    name: str = ""
    bound: BoundKey | None = None
    seen: BoundKey | None = None


class NodeAttestor(Protocol):
    """One way to prove it. `type` is its name, as SPIRE has it."""

    @property
    def type(self) -> str: ...

    async def attest(self, payload: bytes, challenge: Challenge) -> Attested:
        """Raise InvalidInput or Refused with SPIRE's texts."""


def node_id(trust_domain: TrustDomain, attestor: str, *names: str) -> SpiffeId:
    """The ID of a node by what attested it and what tells it apart there, a segment each. Raise InvalidSpiffeId."""
    if any("/" in name for name in names):
        raise InvalidSpiffeId("what names a node is one segment of a SPIFFE ID")
    return SpiffeId.from_parts(trust_domain.name, f"{AGENT_PATH}{attestor}/{'/'.join(names)}")
