"""A node of a SPIRE server, which this agent is: what it is given there, and how it fares.

It goes on with what it has while the server is away, and asks until it is back. What happens is told by hooks, which
neither block nor raise.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from sojourn.authority.key_seal import KeySeal
from sojourn.errors import NodeRefused, SojournError, Unavailable, UpstreamUnavailable
from sojourn.httpclient.lookups import Lookups
from sojourn.identity.entries import Entry
from sojourn.limits import (
    UPSTREAM_POLL_JITTER_SHARE,
    UPSTREAM_POLL_MAX_SECONDS,
    UPSTREAM_START_SECONDS,
    UPSTREAM_SYNC_AGAIN_SECONDS,
)
from sojourn.runtime.background import Background
from sojourn.runtime.backoff import pause_after
from sojourn.runtime.clock import Alarms, Clock
from sojourn.runtime.hooks import Hooks
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import X509Svid
from sojourn.upstream.connection import ServerFault
from sojourn.upstream.membership import Membership
from sojourn.upstream.node_attestation import AttestedNode, NodeAttestor
from sojourn.upstream.node_keep import Keep, NodeKeep, digest
from sojourn.upstream.node_state import NodeState, behind, near_end
from sojourn.upstream.server_addresses import ServerAddresses
from sojourn.upstream.server_link import ServerLink, Work
from sojourn.upstream.signers import NodeJwtSigner, NodeWitSigner, NodeX509Signer
from sojourn.upstream.synchronization import Synchronization
from sojourn.upstream.told_version import ToldVersion
from sojourn.upstream.vouching import Vouching

log = structlog.get_logger()
Made = TypeVar("Made")


@dataclass(frozen=True)
class NodeSettings:
    """`servers`: each HOST:PORT, of which all addresses are used. `bootstrap`: the bundle of the trust domain to join
    by. `attestor`: makes what proves which node this is, each time anew, in a thread; raises InvalidInput. `poll`:
    between two syncs. `renew_at`: the share of an SVID's life after which this node's own one is renewed. `folder`:
    where what is kept over restarts lies; it is made. `keep`: whether X.509-SVIDs of workloads are, with their keys.
    `seal`: what keys are sealed with on disk, if they are.
    """

    servers: Sequence[str]
    bootstrap: Bundle
    attestor: Callable[[], NodeAttestor]
    folder: Path
    poll: timedelta = timedelta(seconds=5)
    renew_at: float = 0.5
    keep: Keep = "svids"
    new_curve: Callable[[], ec.EllipticCurve] = ec.SECP256R1
    seal: KeySeal | None = None


class SpireNode:
    """One node. `start` it, `run` it until it is cancelled, then `close` it."""

    def __init__(self, settings: NodeSettings, clock: Clock, alarms: Alarms) -> None:
        """Raise InvalidInput for servers that are none, CannotStart if others could have written what is kept."""
        self._settings = settings
        self._clock = clock
        self._alarms = alarms
        self._keep = NodeKeep(
            settings.folder, settings.bootstrap.trust_domain, settings.keep, clock, alarms, seal=settings.seal
        )
        self._given = Synchronization(settings.bootstrap)
        self._trusted: Bundle | None = settings.bootstrap  # by which servers are verified; None: by the bundle of now
        self._member = Membership(
            settings.attestor,
            lambda: self.trusted,
            self._vouched,
            clock,
            lambda node: self._keep.keep_node(node, settings.bootstrap),
            renew_at=settings.renew_at,
        )
        self._link = ServerLink(ServerAddresses(settings.servers, Lookups(len(settings.servers))), self)
        self._version = ToldVersion(self._link)
        self._background = Background("node_fault")
        self._first: asyncio.Future[float] | None = None
        self._wake = asyncio.Event()
        self._synced: tuple[datetime, float] | None = None  # by the wall, and by the boot clock
        self._synced_or_begun = clock.boot()
        self._asked_at = float("-inf")  # on the boot clock: when a sync began last
        self._failures = 0
        self._fault: SojournError | None = None
        self._away_since: float | None = None
        self._lives: dict[str, tuple[datetime, datetime]] = {}  # of the newest SVID of each entry: begin and end
        self.x509 = NodeX509Signer(self, clock, settings.new_curve)
        self.jwt = NodeJwtSigner(self, clock)
        self.wit = NodeWitSigner()
        self._follow()

    def _follow(self) -> None:
        given, member = self._given, self._member
        given.on_bundle(self._bundle_changed)
        given.on_own(self._own_had)
        given.on_federated(lambda _changed, _gone: self._keep.keep_bundles(given.bundle, given.federated))
        given.on_entries(self._entries_changed)
        member.on_svid(lambda _node: self._wake.set())
        member.on_refused(self._refused)
        member.on_accepted(self._accepted)

    # --- hooks ------------------------------------------------------------------------------------------------------

    @property
    def on_entries(self) -> Hooks[[Mapping[str, Entry], Collection[str]]]:
        """Those that are new or have changed, by ID; and the IDs of those that are gone."""
        return self._given.on_entries

    @property
    def on_bundle(self) -> Hooks[[Bundle, frozenset[str]]]:
        """The trust domain's bundle, and which authorities and keys have become tainted or have gone: of X.509
        authorities by subject key identifier in hex, of JWT keys by `kid`.
        """
        return self._given.on_bundle

    @property
    def on_federated(self) -> Hooks[[Mapping[TrustDomain, Bundle], Collection[TrustDomain]]]:
        """Bundles of other trust domains that are new or have changed, and which are gone."""
        return self._given.on_federated

    @property
    def on_svid(self) -> Hooks[[AttestedNode]]:
        """A new SVID of the node itself."""
        return self._member.on_svid

    @property
    def on_refused(self) -> Hooks[[NodeRefused]]:
        """The server does not take this agent for its node. If it is banned nothing may be given out any more."""
        return self._member.on_refused

    @property
    def on_accepted(self) -> Hooks[[]]:
        """It does again."""
        return self._member.on_accepted

    # --- what it has ------------------------------------------------------------------------------------------------

    @property
    def spiffe_id(self) -> SpiffeId | None:
        """The node's SPIFFE ID, which the server chooses; None: it has not joined yet."""
        node = self._member.node
        return None if node is None else node.spiffe_id

    @property
    def svid(self) -> X509Svid | None:
        """The node's own X.509-SVID."""
        node = self._member.node
        return None if node is None else node.svid

    @property
    def own_svid(self) -> X509Svid:
        """The same. Raise Unavailable if there is none."""
        return self._member.own_svid

    @property
    def bundle(self) -> Bundle:
        """The trust domain's bundle: the newest, or the one to join by."""
        return self._given.bundle

    @property
    def trusted(self) -> Bundle:
        """What a server is verified by."""
        return self._trusted or self._given.bundle

    @property
    def vouching(self) -> Vouching:
        return self._given.vouching

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All entries of this node by ID. None if it is banned."""
        return self._given.authorized.entries

    @property
    def federated(self) -> Mapping[TrustDomain, Bundle]:
        """The bundles of other trust domains that entries name."""
        return self._given.federated

    @property
    def state(self) -> NodeState:
        member, boot = self._member, self._clock.boot()
        node, refusal, fault = member.node, member.refusal, self._fault or member.fault
        now = self._clock.now()
        return NodeState(
            server=self._link.server,
            spiffe_id=self.spiffe_id,
            svid_ends=None if node is None else node.svid.not_after,
            reattestable=node is not None and node.reattestable,
            synced_at=None if self._synced is None else self._synced[0],
            synced_seconds=None if self._synced is None else boot - self._synced[1],
            behind_seconds=behind(boot - self._synced_or_begun, self._settings.poll),
            away_seconds=None if self._away_since is None else boot - self._away_since,
            fault="" if fault is None else fault.public,
            refused="" if refusal is None else refusal.reason_code,
            remedy=member.remedy,
            entries=len(self.entries),
            left_out=len(self._given.authorized.unread),
            federated=len(self.federated),
            svids=len(self._lives),
            clock_behind_seconds=member.clock_behind_seconds,
            svids_near_end=sum(near_end(*each, now, self._settings.renew_at) for each in self._lives.values()),
        )

    # --- its life ---------------------------------------------------------------------------------------------------

    async def start(self, patience: float | None = UPSTREAM_START_SECONDS) -> None:
        """Have what was kept; if there is nothing, join, and wait for that so many seconds. Raise nothing."""
        kept = await self._keep.load()
        if kept is not None:
            self._member.take(kept.node)
            self._given.take(kept.bundle or self._settings.bootstrap, kept.authorized, kept.federated)
            # An operator who has given another bundle to join by wants it to be used.
            same = kept.joined_by == digest(self._settings.bootstrap)
            self._trusted = None if same and kept.bundle is not None else self._settings.bootstrap
            return
        self._first = self._background.run(self.sync())
        _, under_way = await asyncio.wait({self._first}, timeout=patience)
        if under_way:
            self._failed(UpstreamUnavailable(f"no SPIRE server has answered within {patience:g} s"))

    async def run(self) -> None:
        """Go on being this node until cancelled."""
        if self._first is not None:
            await asyncio.shield(self._first)
        while True:
            await self._wait(await self.sync())

    async def close(self) -> None:
        """Have all on disk, and the connections closed."""
        await self._member.close()
        if self._first is not None:
            self._first.cancel()
        await self._version.close()
        await self.x509.batches.close()
        await self._background.quiet()
        await self._given.close()
        await self._keep.close()
        await self._link.close()

    async def sync(self) -> float:
        """See to the node's own SVID, and have all as the server has it now. Return seconds until the next time."""
        self._wake.clear()
        self._asked_at = self._clock.boot()
        try:
            await self._member.see_to(self._link)
            await self._given.refresh(self._link, self._member.own_svid.spiffe_id)
        except NodeRefused as error:
            self._member.refuse(error)
            self._failed(error)
        except SojournError as error:
            self._failed(error)
        except Exception as error:
            log.exception("node_fault")
            self._failed(UpstreamUnavailable("a fault of this agent's", detail=str(error)))
        else:
            self._succeeded()
        return self._pause()

    async def kept_within(self, seconds: float) -> str:
        """Have this node's own SVID on disk. Return why it is not after so many seconds; empty: it is."""
        return await self._keep.kept_within(seconds)

    def sync_soon(self) -> None:
        """Sync before it is time to: something is other at the server than we know."""
        self._wake.set()

    # --- for the signers --------------------------------------------------------------------------------------------

    async def settled(self) -> None:
        await self._member.settled()

    async def call(self, work: Work[Made]) -> Made:
        """Do a piece of work at the server. Raise Unavailable if there is none, NodeRefused if it takes us for none."""
        try:
            self._member.check_joined()
        except (NodeRefused, Unavailable):
            raise
        except SojournError as error:
            raise Unavailable(f"this node is none at its SPIRE server now: {error.public}") from error
        try:
            return await self._link.call(work)
        except NodeRefused as error:
            self._member.refuse(error)
            self._wake.set()
            raise
        except UpstreamUnavailable as error:
            if not isinstance(error, ServerFault):
                self._away(error)
            raise

    async def refresh_bundle(self) -> None:
        await self._given.refresh_bundle(self._link)

    def signed(self, entry: Entry, svid: X509Svid) -> None:
        if self.entries.get(entry.id) is not None:
            self._lives[entry.id] = (svid.not_before, svid.not_after)
            self._keep.keep_svid(entry, svid)

    def kept_svid(self, entry: Entry) -> X509Svid | None:
        svid = self._keep.take(entry, self.bundle)
        if svid is not None:
            self._lives[entry.id] = (svid.not_before, svid.not_after)
        return svid

    def is_fresh(self, svid: X509Svid) -> bool:
        life = svid.not_after - svid.not_before
        return svid.not_before <= self._clock.now() < svid.not_before + life * self._settings.renew_at

    def _vouched(self, svid: X509Svid) -> bool:
        return self.vouching.of_x509(svid)

    # --- within -----------------------------------------------------------------------------------------------------

    def _entries_changed(self, _changed: Mapping[str, Entry], gone: Collection[str]) -> None:
        for name in gone:
            self._lives.pop(name, None)
            self._keep.forget(name)
        self._keep.keep_entries(self._given.authorized)

    def _bundle_changed(self, bundle: Bundle, _lost: frozenset[str]) -> None:
        self._keep.keep_bundles(bundle, self.federated)
        self._wake.set()  # our own SVID may be to be renewed

    def _own_had(self) -> None:
        if self._trusted is not None:  # from now on it is the bundle of now
            self._trusted = None
            self._keep.keep_bundles(self.bundle, self.federated)

    def _refused(self, _refusal: NodeRefused) -> None:
        if self._member.banned:
            self._given.withhold()
            self._lives.clear()
            self._background.run(self._keep.destroy())

    def _accepted(self) -> None:
        self._given.give()
        node = self._member.node
        if node is not None:  # what was kept of it may have been destroyed
            self._background.run(self._keep.keep_node(node, self._settings.bootstrap))
            self._keep.keep_bundles(self.bundle, self.federated)

    def _succeeded(self) -> None:
        self._synced = (self._clock.now(), self._clock.boot())
        self._synced_or_begun = self._synced[1]
        self._failures, self._fault = 0, None
        self._version.tell(self.spiffe_id)
        if self._away_since is not None:
            seconds = round(self._clock.boot() - self._away_since, 3)
            self._away_since = None
            log.info("node_server_back", server=self._link.server, seconds=seconds)

    def _failed(self, error: SojournError) -> None:
        self._failures += 1
        before, self._fault = self._fault, error
        is_fault = isinstance(error, ServerFault)
        if isinstance(error, UpstreamUnavailable) and not is_fault:
            self._away(error)
        elif isinstance(error, NodeRefused) or (error is self._member.fault and not is_fault):
            return  # it is told there
        elif before is None or before.code != error.code:
            log.error("node_not_synced", code=error.code, reason=error.public, detail=error.detail)

    def _away(self, error: UpstreamUnavailable) -> None:
        """No server answers: it is told once."""
        if self._away_since is None:
            self._away_since = self._clock.boot()
            log.warning("node_server_away", reason=error.public)
            self._wake.set()

    def _pause(self) -> float:
        poll = self._settings.poll.total_seconds()
        if self._failures:
            most = max(poll, UPSTREAM_POLL_MAX_SECONDS)
            pause = pause_after(self._failures - 1, poll, most, random.random())  # noqa: S311
        else:
            pause = poll * random.uniform(1 - UPSTREAM_POLL_JITTER_SHARE, 1 + UPSTREAM_POLL_JITTER_SHARE)  # noqa: S311
        return min(pause, self._member.pause())

    async def _wait(self, seconds: float) -> None:
        """Until the pause is over, or somebody asks for a sync, but not at once after the last one."""
        over = asyncio.Event()
        alarm = self._alarms.after(max(0.0, seconds), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()
        rest = self._asked_at + UPSTREAM_SYNC_AGAIN_SECONDS - self._clock.boot()
        if rest > 0:
            alarm = self._alarms.after(rest, over.set)
            try:
                await over.wait()
            finally:
                alarm.cancel()
