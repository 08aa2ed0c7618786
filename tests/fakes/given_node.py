"""A node of a server that is not there: what it is given, and what is told of it, as a test says."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from fakes.authorities import authority_in
from fakes.signers import LateSigner
from sojourn.errors import NodeRefused, Unavailable
from sojourn.identity.entries import Entry
from sojourn.identity.svid_issuer import Signers
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import X509Svid
from sojourn.upstream.node_attestation import AttestedNode
from sojourn.upstream.node_state import NodeState

AGENT = SpiffeId.parse("spiffe://example.org/spire/agent/x509pop/1")
STATE = NodeState(
    server="127.0.0.1:8081",
    spiffe_id=AGENT,
    svid_ends=None,
    reattestable=True,
    synced_at=None,
    synced_seconds=None,
    behind_seconds=None,
    away_seconds=None,
    fault="",
    refused="",
    remedy="",
    entries=0,
    left_out=0,
    federated=0,
    svids=0,
    svids_near_end=0,
)


class FakeNode:
    """Has what `SpireNode` has; an authority of the test's stands for the server's. `joined`: whether it has an ID."""

    def __init__(self, folder: Path, clock: Clock, *, joined: bool = True) -> None:
        self.server = authority_in(folder, clock)
        signers = Signers.at_once(self.server, timedelta(hours=1), timedelta(minutes=5))
        self.x509 = LateSigner(signers.x509, held=False)
        self.jwt = LateSigner(signers.jwt, held=False)
        self.wit = LateSigner(signers.wit, held=False)
        self.entries: dict[str, Entry] = {}
        self.federated: dict[TrustDomain, Bundle] = {}
        self.bundle = self.server.bundle
        self.svid: X509Svid | None = None
        self.state = replace(STATE, spiffe_id=None)
        self.on_entries: Hooks = Hooks()
        self.on_bundle: Hooks = Hooks()
        self.on_federated: Hooks = Hooks()
        self.on_svid: Hooks = Hooks()
        self.on_refused: Hooks = Hooks()
        self.on_accepted: Hooks = Hooks()
        self.started = self.closed = False
        if joined:
            self.join()

    @property
    def spiffe_id(self) -> SpiffeId | None:
        return None if self.svid is None else self.svid.spiffe_id

    @property
    def own_svid(self) -> X509Svid:
        if self.svid is None:
            raise Unavailable("this node has not joined its SPIRE server yet")
        return self.svid

    async def start(self) -> None:
        self.started = True

    async def close(self) -> None:
        self.closed = True

    def join(self, spiffe_id: SpiffeId = AGENT) -> None:
        self.svid = self.server.issue_x509(spiffe_id, timedelta(hours=1))
        self.state = replace(self.state, spiffe_id=spiffe_id, svid_ends=self.svid.not_after)
        self.on_svid.tell(AttestedNode(self.svid, reattestable=True))

    def give(self, *entries: Entry) -> None:
        """The server has these, with those that it has given before."""
        put = {each.id: each for each in entries}
        self.entries.update(put)
        self.on_entries.tell(put, ())

    def take(self, *ids: str) -> None:
        for each in ids:
            del self.entries[each]
        self.on_entries.tell({}, ids)

    def federate(self, bundles: Mapping[TrustDomain, Bundle]) -> None:
        self.federated.update(bundles)
        self.on_federated.tell(bundles, ())

    def rebundle(self, bundle: Bundle, lost: frozenset[str] = frozenset()) -> None:
        self.bundle = bundle
        self.on_bundle.tell(bundle, lost)

    def refuse(self, reason: str) -> None:
        self.state = replace(self.state, refused=reason, remedy="ask somebody")
        if reason == "banned":
            gone, self.entries = list(self.entries), {}
            self.on_entries.tell({}, gone)
        self.on_refused.tell(NodeRefused("no", reason_code=reason))
