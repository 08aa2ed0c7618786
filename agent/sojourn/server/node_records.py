"""What a server knows of a node, and where that is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from sojourn.attestation.selectors import Selector
from sojourn.audit.journal import Event
from sojourn.spiffe.ids import SpiffeId


@dataclass(frozen=True, slots=True)
class BoundKey:
    """The key that is bound to a node's name, and what tells its copies apart. Digests: SHA-256, lower-case hex.

    `stamp` is the digest of what the node is known by at its next join, and `joins` how often it has joined by this
    key. A `locked` one opens nothing any more.
    """

    key: str  # the digest of the public key as DER
    stamp: str
    joins: int
    locked: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One node. Times: seconds since the epoch.

    `serial` is that of the X.509-SVID by which it is known, and `new_serial` that of one that it was given and has not
    shown yet; 0: there is none. A banned node has neither. `name` is what an operator has called it, which no two nodes
    are called; empty: nobody has. `bound`: its key, if it has joined by one that a token has bound.
    """

    spiffe_id: SpiffeId
    attestor: str
    selectors: frozenset[Selector]
    serial: int
    expires_at: int
    reattestable: bool
    attested_at: int
    new_serial: int = 0
    new_expires_at: int = 0
    banned: bool = False
    name: str = ""
    version: str = ""
    bound: BoundKey | None = None

    @property
    def locked(self) -> bool:
        """Whether two have its key, so that it is given nothing."""
        return self.bound is not None and self.bound.locked

    def shown(self, serial: int, not_after: datetime) -> "Node":
        """The node as it is known by this SVID, and by no other."""
        return replace(self, serial=serial, expires_at=int(not_after.timestamp()), new_serial=0, new_expires_at=0)

    def given(self, serial: int, not_after: datetime) -> "Node":
        """The node that was given this SVID, and is known by the one before until it shows it."""
        return replace(self, new_serial=serial, new_expires_at=int(not_after.timestamp()))


class NodeStore(Protocol):
    """Where nodes are kept, each change with its audit records."""

    def load(self) -> list[Node]: ...

    async def write(self, put: Sequence[Node], remove: Sequence[SpiffeId], events: Sequence[Event] = ()) -> None: ...


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token by which a node may join once, known by its digest. `name`: what the node is called then."""

    digest: str  # SHA-256, lower-case hex
    expires_at: int  # seconds since the epoch
    name: str = ""


class JoinTokenStore(Protocol):
    """Where tokens are kept that are not used yet."""

    def load(self) -> list[JoinToken]: ...

    async def put(self, token: JoinToken, events: Sequence[Event]) -> None: ...

    async def remove(self, digests: Sequence[str]) -> None: ...
