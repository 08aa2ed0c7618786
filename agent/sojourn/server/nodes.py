"""The nodes of a server, in memory and on disk: who joins, renews, is banned, and by which SVID each is known.

A node that cannot attest anew is given its next SVID aside: that becomes the one by which it is known when it is shown
first, and the one before is good no more.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sojourn.audit.journal import Audit, Event
from sojourn.errors import AgentDenied, FailedPrecondition, InvalidInput, NotFound, Refused, Unavailable
from sojourn.limits import NODE_VERSION_MAX
from sojourn.runtime.background import whole
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks
from sojourn.server.authorized_entries import named_node
from sojourn.server.node_attestor import Attested
from sojourn.server.node_records import BoundKey, Node, NodeStore
from sojourn.spiffe.ids import SpiffeId

log = structlog.get_logger()
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
Chain = tuple[x509.Certificate, ...]
_UNDER_WAY: Final = "another join of this node is under way: try again"


class NodeSigner(Protocol):
    """What signs X.509-SVIDs for keys of others."""

    def sign_x509(
        self,
        spiffe_id: SpiffeId,
        public_key: PublicKey,
        ttl: timedelta,
        dns_names: Sequence[str] = ...,
        entry_id: str = ...,
    ) -> Chain:
        """The chain, leaf first. Raise Unavailable."""


class Nodes:
    """All nodes. What a method changes is on disk when it returns."""

    def __init__(self, store: NodeStore, signer: NodeSigner, ttl: timedelta, audit: Audit, clock: Clock) -> None:
        """`ttl`: the life of a node's own SVID, or less if what signs it ends before."""
        self._store = store
        self._signer = signer
        self._ttl = ttl
        self._audit = audit
        self._clock = clock
        self._nodes = {each.spiffe_id: each for each in _named_apart(store.load())}
        self._turns: WeakValueDictionary[SpiffeId, asyncio.Lock] = WeakValueDictionary()
        self.on_change: Hooks[[SpiffeId, Node | None]] = Hooks()  # of what is on disk; None: the node is gone

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def get(self, spiffe_id: SpiffeId) -> Node | None:
        return self._nodes.get(spiffe_id)

    def is_bound(self, spiffe_id: SpiffeId) -> bool:
        """Whether there is such a node, which joins by a key that is bound to its name."""
        node = self._nodes.get(spiffe_id)
        return node is not None and node.bound is not None

    # --- what nodes ask ---------------------------------------------------------------------------------------------

    async def admit(self, spiffe_id: SpiffeId, certificate: x509.Certificate) -> Node:
        """The node that shows a certificate, which was verified. Raise AgentDenied with SPIRE's reasons and texts.

        The first use of an SVID that a node has renewed makes that the one by which it is known.
        """
        node = self._known(spiffe_id, certificate)
        serial = certificate.serial_number
        if node.serial == serial:
            return node
        return await self._activate(spiffe_id, certificate)

    def _known(self, spiffe_id: SpiffeId, certificate: x509.Certificate) -> Node:
        told, serial = f'agent "{spiffe_id}"', certificate.serial_number
        if self._clock.now() > certificate.not_valid_after_utc:
            raise AgentDenied(f"{told} SVID is expired", reason_code="expired")
        node = self._nodes.get(spiffe_id)
        if node is None:
            raise AgentDenied(f"{told} is not attested", reason_code="not_attested")
        if node.banned:
            raise AgentDenied(f"{told} is banned", reason_code="banned")
        if serial not in {node.serial, node.new_serial}:
            raise AgentDenied(
                f'{told} expected to have serial number "{node.serial}"; has "{serial}"', reason_code="not_active"
            )
        return node

    @whole
    async def _activate(self, spiffe_id: SpiffeId, certificate: x509.Certificate) -> Node:
        async with self._turn(spiffe_id):
            node = self._known(spiffe_id, certificate)  # as it is by now
            if node.serial == certificate.serial_number:
                return node
            return await self._put(node.shown(certificate.serial_number, certificate.not_valid_after_utc))

    def check_stands(self, node: Node) -> None:
        """Raise AgentDenied for a node that was banned or evicted while its call went on."""
        now = self._nodes.get(node.spiffe_id)
        if now is None:
            raise AgentDenied(f'agent "{node.spiffe_id}" is not attested', reason_code="not_attested")
        if now.banned:
            raise AgentDenied(f'agent "{node.spiffe_id}" is banned', reason_code="banned")

    def check_welcome(self, spiffe_id: SpiffeId) -> None:
        """Raise Refused for who was attested as a node that is banned."""
        node = self._nodes.get(spiffe_id)
        if node is not None and node.banned:
            raise Refused("failed to attest: agent is banned")

    @whole
    async def join(self, attestor: str, attested: Attested, key: PublicKey, address: str) -> Chain:
        """Give who was attested an SVID for its key, and know it by that from now on. Raise Refused, Unavailable."""
        spiffe_id = attested.spiffe_id
        async with self._turn(spiffe_id):
            self.check_welcome(spiffe_id)
            before = self._nodes.get(spiffe_id)
            self._check_bound(attested, before)
            chain = self._signer.sign_x509(spiffe_id, key, self._ttl)
            leaf = chain[0]
            node = Node(
                spiffe_id=spiffe_id,
                attestor=attestor,
                selectors=attested.selectors,
                serial=leaf.serial_number,
                expires_at=int(leaf.not_valid_after_utc.timestamp()),
                reattestable=attested.reattestable,
                attested_at=int(self._clock.now().timestamp()),
                name=attested.name or ("" if before is None else before.name),
                version="" if before is None else before.version,
                bound=attested.bound,
            )
            joins = None if attested.bound is None else attested.bound.joins
            said = {"attestor": attestor, "address": address, "again": before is not None or None, "joins": joins}
            await self._put(node, self._event("node_joined", leaf, spiffe_id, said))
            log.info("node_joined", spiffe_id=str(spiffe_id), attestor=attestor, address=address)
        await self._unname(node)
        return chain

    @whole
    async def renew(self, spiffe_id: SpiffeId, key: PublicKey) -> Chain:
        """Give a node its next SVID. Raise AgentDenied for one that has to attest anew, Unavailable."""
        async with self._turn(spiffe_id):
            node = self._found(spiffe_id)
            self.check_stands(node)
            check_renews(node)
            chain = self._signer.sign_x509(spiffe_id, key, self._ttl)
            leaf = chain[0]
            event = self._event("node_svid_renewed", leaf, spiffe_id, {"attestor": node.attestor})
            await self._put(node.given(leaf.serial_number, leaf.not_valid_after_utc), event)
            return chain

    @whole
    async def note_version(self, spiffe_id: SpiffeId, version: str) -> None:
        """Hear from a node of which release it is. Raise InvalidInput if that is too long."""
        if len(version) > NODE_VERSION_MAX:
            raise InvalidInput(f"agent version is too long (max {NODE_VERSION_MAX} characters)")
        async with self._turn(spiffe_id):
            node = self._found(spiffe_id)
            if version and node.version != version:
                await self._put(replace(node, version=version))

    @whole
    async def lock(self, spiffe_id: SpiffeId, seen: BoundKey) -> None:
        """Know a node by no SVID, and give nothing for its key any more: two have it. Raise NotFound, Unavailable."""
        async with self._turn(spiffe_id):
            node = self._found(spiffe_id)
            if node.bound != seen:
                raise Unavailable(_UNDER_WAY)
            bound = replace(seen, locked=True)
            locked = replace(node, serial=0, new_serial=0, new_expires_at=0, bound=bound)
            said = {"spiffe_id": str(spiffe_id), "joins": seen.joins}
            await self._put(locked, self._audit.event("node_locked", said))
            log.error("node_locked", spiffe_id=str(spiffe_id), joins=seen.joins)

    # --- what operators ask -----------------------------------------------------------------------------------------

    @whole
    async def ban(self, spiffe_id: SpiffeId, by: dict[str, Any]) -> None:
        """Take a node for one no more, nor let it join again. Raise NotFound."""
        async with self._turn(spiffe_id):
            node = self._found(spiffe_id)
            banned = replace(node, banned=True, serial=0, new_serial=0, new_expires_at=0)
            await self._put(banned, self._audit.event("node_banned_by_operator", {"spiffe_id": str(spiffe_id), **by}))

    @whole
    async def unban(self, spiffe_id: SpiffeId, by: dict[str, Any]) -> None:
        """Let a banned node attest anew. It is known by no SVID until it has.

        Raise NotFound, FailedPrecondition for one that is not banned, or that cannot attest anew.
        """
        async with self._turn(spiffe_id):
            node = self._found(spiffe_id)
            if not node.banned:
                raise FailedPrecondition(f"{str(spiffe_id)!r} is not banned")
            if not node.reattestable:
                raise FailedPrecondition(
                    f"{str(spiffe_id)!r} has joined by what is good once, and cannot attest anew: evict it, and make"
                    " another token"
                )
            event = self._audit.event("node_unbanned_by_operator", {"spiffe_id": str(spiffe_id), **by})
            await self._put(replace(node, banned=False), event)

    @whole
    async def evict(self, spiffe_id: SpiffeId, by: dict[str, Any]) -> None:
        """Know a node no more: it may join again. Raise NotFound."""
        async with self._turn(spiffe_id):
            self._found(spiffe_id)
            event = self._audit.event("node_evicted_by_operator", {"spiffe_id": str(spiffe_id), **by})
            await self._store.write([], [spiffe_id], [event])
            del self._nodes[spiffe_id]
            self.on_change.tell(spiffe_id, None)

    # --- of all -----------------------------------------------------------------------------------------------------

    def _check_bound(self, attested: Attested, before: Node | None) -> None:
        """Raise Unavailable if a node's key is not as it was when it was looked at, and Refused for who has another
        proof than a key, and the name of a node that has one.
        """
        if attested.bound is not None:
            if (None if before is None else before.bound) != attested.seen:
                raise Unavailable(_UNDER_WAY)
        elif attested.name and self.is_bound(named_node(attested.spiffe_id.trust_domain, attested.name)):
            raise Refused("failed to attest: the node of this name is bound to a key")

    def _found(self, spiffe_id: SpiffeId) -> Node:
        node = self._nodes.get(spiffe_id)
        if node is None:
            raise NotFound("agent not found")
        return node

    async def _unname(self, newest: Node) -> None:
        """Call no other node what this one is called: it is who is meant."""
        if not newest.name:
            return
        for other in [each.spiffe_id for each in self if each.name == newest.name and each != newest]:
            async with self._turn(other):
                node = self._nodes.get(other)
                if node is not None and node.name == newest.name and other != newest.spiffe_id:
                    await self._put(replace(node, name=""))

    async def _put(self, node: Node, *events: Event) -> Node:
        await self._store.write([node], [], events)
        self._nodes[node.spiffe_id] = node
        self.on_change.tell(node.spiffe_id, node)
        return node

    def _event(self, event: str, leaf: x509.Certificate, spiffe_id: SpiffeId, said: dict[str, Any]) -> Event:
        ends: datetime = leaf.not_valid_after_utc
        fields = {"spiffe_id": str(spiffe_id), "serial": f"{leaf.serial_number:x}", "expires_at": int(ends.timestamp())}
        return self._audit.event(event, {**fields, **said})

    def _turn(self, spiffe_id: SpiffeId) -> asyncio.Lock:
        """Changes of one node come one after the other."""
        turn = self._turns.get(spiffe_id)
        if turn is None:
            turn = self._turns[spiffe_id] = asyncio.Lock()
        return turn


def check_renews(node: Node) -> None:
    """Raise AgentDenied for a node that renews its SVID by attesting anew."""
    if node.reattestable:
        raise AgentDenied("agent must reattest instead of renew", reason_code="must_reattest")


def _named_apart(nodes: Sequence[Node]) -> Iterator[Node]:
    """Nodes of which no two are called the same: the newest keeps its name, if a server has ended as it gave it."""
    names: set[str] = set()
    for each in sorted(nodes, key=lambda node: (node.attested_at, str(node.spiffe_id)), reverse=True):
        yield replace(each, name="") if each.name in names else each
        names.add(each.name)
