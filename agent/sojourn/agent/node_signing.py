"""A node of a SPIRE server: the server signs and has the entries, and this agent serves them here."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Self

from cryptography import x509

from sojourn.agent.door_parts import DoorParts
from sojourn.agent.node_entries import NodeEntries
from sojourn.audit.journal import Audit
from sojourn.endpoints.grpc.calls import Method
from sojourn.endpoints.listener.own_svid import GivenSvid
from sojourn.endpoints.listener.tls import Listener
from sojourn.endpoints.spire.held_by_server import restricted
from sojourn.errors import CannotStart, NodeRefused, NoIdentity, SojournError, Unavailable
from sojourn.identity.entries import Entry
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.identities import Identities
from sojourn.identity.prefetch import Prefetch
from sojourn.identity.registry import Registry
from sojourn.identity.svid_issuer import Signers, SvidIssuer
from sojourn.limits import UPSTREAM_AWAY_TOLD_SECONDS
from sojourn.runtime.background import Background
from sojourn.runtime.clock import Clock
from sojourn.server.nodes import Nodes
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId
from sojourn.upstream.assertions import NodeAssertions
from sojourn.upstream.held_by_server import NoEntries, NoForeign, NoMinting
from sojourn.upstream.node import SpireNode
from sojourn.upstream.node_attestation import AttestedNode
from sojourn.upstream.node_authority import NodeAuthority
from sojourn.upstream.node_state import NodeState


class NodeSigning:
    """What stands in the place of an authority of our own."""

    default_ttl = None
    nodes: Nodes | None = None

    def __init__(
        self, node: SpireNode, attestation_type: str, before: SpiffeId, prefetch: int, audit: Audit, clock: Clock
    ) -> None:
        """`before`: what this node is called until it has joined. `prefetch`: of how many entries SVIDs are signed
        before anybody asks.
        """
        self.node = node
        self.attestation_type = attestation_type
        self._before = before
        self._most = prefetch
        self._audit = audit
        self._clock = clock
        self._background = Background("node_fault")
        self._prefetch: Prefetch | None = None
        self._known_as: SpiffeId | None = None
        self._registry: Registry | None = None
        self.authority = NodeAuthority(node)
        self.signers = Signers(node.x509, node.jwt, node.wit)
        self.assertions = NodeAssertions(node.jwt, self._entries_of)
        self.minting, self.entries, self.foreign = NoMinting(), NoEntries(), NoForeign()
        node.on_svid(self._given_svid)
        node.on_refused(self._refused)
        node.on_accepted(self._accepted)

    async def start(self) -> None:
        """Have what an earlier run kept, or join. An agent whose server is away starts without. Raise CannotStart if
        the server's answer is no.
        """
        await self.node.start()
        state = self.node.state
        if state.spiffe_id is None and state.fault and state.away_seconds is None:
            raise CannotStart(f"this agent has not become a node: {state.fault}; {state.remedy}".removesuffix("; "))

    @property
    def told(self) -> Self:
        return self

    @property
    def state(self) -> NodeState:
        return self.node.state

    @property
    def prefetched(self) -> int:
        return 0 if self._prefetch is None else len(self._prefetch)

    @property
    def node_id(self) -> SpiffeId:
        return self.node.spiffe_id or self._before

    @property
    def node_ids(self) -> tuple[SpiffeId, ...]:
        return (self.node_id,)

    @property
    def reattestable(self) -> bool:
        return self.node.state.reattestable

    @property
    def in_short(self) -> str:
        state = self.node.state
        if state.refused:
            return f"refused by its SPIRE server: {state.refused}"
        if state.away_seconds is not None:
            return "no SPIRE server answers"
        return "node of a SPIRE server" if state.spiffe_id is not None else "has not joined its SPIRE server"

    @property
    def certificate(self) -> x509.Certificate:
        return self.node.own_svid.chain[0]

    # --- what the server says ---------------------------------------------------------------------------------------

    def begin(self, registry: Registry, foreign: ForeignBundles, identities: Identities) -> None:
        """Have the rooms follow the server from now on."""
        issuing, node = identities.issuing, self.node
        self._registry = registry

        entries = NodeEntries(registry, lambda: self.node_id)

        def renamed(_node: AttestedNode) -> None:
            if registry.node_id != self.node_id:
                entries.take(node.entries)

        def bundle(_bundle: Bundle, lost: frozenset[str]) -> None:
            if lost:
                self._background.run(issuing.x509.reissue(lambda kept: not node.x509.vouches(kept.svid)))

        def refused(_refusal: NodeRefused) -> None:
            why = self._why_none()
            if why is not None:
                for stream in identities.streams:
                    stream.end(why)

        identities.why_none = self._why_none
        entries.take_all(node.entries)
        foreign.follow_server(node.federated)
        node.on_svid(renamed)
        node.on_entries(entries.take)
        node.on_federated(foreign.follow_server)
        node.on_bundle(bundle)
        node.on_refused(refused)
        self._prefetch = Prefetch(registry, issuing, self._most)
        self._prefetch.begin()

    async def run(self) -> None:
        """Go on being a node until cancelled."""
        assert self._prefetch is not None  # `begin` comes first
        async with asyncio.TaskGroup() as group:
            group.create_task(self.node.run())
            group.create_task(self._prefetch.run())

    async def close(self) -> None:
        """Have on disk what a restart needs."""
        await self.node.close()

    def _entries_of(self, spiffe_id: SpiffeId) -> tuple[Entry, ...]:
        assert self._registry is not None  # nobody asks before `begin`
        return tuple(each for each in self._registry.registered(spiffe_id) if self._registry.serves(each))

    def _why_none(self) -> SojournError | None:
        """Why nobody has an identity here; None: whoever has none has no entry."""
        if self.node.state.banned:
            return NoIdentity("no identity issued: this node is banned at its SPIRE server")
        if self.node.spiffe_id is None:
            return Unavailable(f"this node has not joined its SPIRE server yet: {self.node.state.fault}")
        return None

    # --- records ----------------------------------------------------------------------------------------------------

    def _given_svid(self, node: AttestedNode) -> None:
        again = self._known_as == node.spiffe_id
        self._known_as = node.spiffe_id
        self._audit.note(
            "node_renewed" if again else "node_attested",
            spiffe_id=str(node.spiffe_id),
            serial=node.svid.serial,
            expires_at=int(node.svid.not_after.timestamp()),
        )

    def _refused(self, refusal: NodeRefused) -> None:
        self._known_as = None
        event = "node_banned" if refusal.reason_code == "banned" else "node_refused"
        self._audit.note(event, spiffe_id=str(self.node_id), reason=refusal.reason_code)

    def _accepted(self) -> None:
        self._audit.note("node_accepted", spiffe_id=str(self.node_id))

    # --- the rest of what an authority of our own would be ----------------------------------------------------------

    def own_svid(self, _issuing: SvidIssuer) -> GivenSvid:
        return GivenSvid(self.node_id, lambda: self.node.own_svid, self.authority)

    def operators(self, services: Mapping[str, dict[str, Method]]) -> dict[str, dict[str, Method]]:
        return restricted(services, lambda: self.node_id)

    def open_listeners(self, parts: DoorParts) -> list[Listener]:
        """A node has none below it."""
        del parts
        return []

    def keys_fault(self) -> str:
        state = self.node.state
        if state.banned:
            return f"this node is banned at its SPIRE server; {state.remedy}"
        if state.svid_ends is None:
            return f"this node has not joined its SPIRE server: {state.fault}"
        if state.svid_ends <= self._clock.now():
            return f"this node's own SVID ended at {_time(state.svid_ends)}: {state.fault or state.refused}"
        return ""

    def root_fault(self) -> str:
        """The server sees to its authority."""
        return ""

    def upstream_fault(self) -> str:
        state = self.node.state
        if state.refused and not state.banned:
            return f"the SPIRE server refuses this node ({state.refused}); {state.remedy}"
        if state.clock_behind_seconds:
            seconds = f"{state.clock_behind_seconds:.0f}"
            return f"this machine's clock is {seconds} s or more behind the SPIRE server's: set it right"
        if state.away_seconds is not None and state.away_seconds >= UPSTREAM_AWAY_TOLD_SECONDS:
            return f"no SPIRE server has answered for {state.away_seconds:.0f} s: {state.fault}"
        if state.behind_seconds is not None and not state.banned:
            why = state.fault or "no sync has come to its end"
            return f"nothing has been synced with the SPIRE server for {state.behind_seconds:.0f} s: {why}"
        return ""

    def token_fault(self) -> str:
        """The root's key is the server's."""
        return ""


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
