"""As whom a SPIRE server is asked to sign an authority: by a SPIFFE ID whose entry there is marked downstream.

Either a spire-agent on this machine gives its X.509-SVID, by its Workload API; or this agent is a node of the server
itself, for that alone, and has it signed by the entry that the server has for this node.
"""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from sojourn.errors import NotFound, SojournError, Unavailable
from sojourn.identity.entries import Entry
from sojourn.limits import UPSTREAM_CALL_SECONDS
from sojourn.runtime.clock import Clock
from sojourn.sdk.client.client import Client
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import X509Svid
from sojourn.upstream.node import SpireNode

Found = TypeVar("Found")
REGISTER = "spire-server entry create -downstream"


class DownstreamIdentity(Protocol):
    """Where the X.509-SVID is from by which the server knows us, and the bundle by which we know the server."""

    async def have(self) -> tuple[X509Svid, Bundle]:
        """Both as they are now. Raise a SojournError that says why there is none."""

    def describe(self) -> Mapping[str, str]:
        """Where it is from, for people."""

    async def close(self) -> None:
        """Let go of what it holds."""


class OfWorkloadApi:
    """What a spire-agent gives this process, asked each time anew."""

    def __init__(self, socket: Path, trust_domain: TrustDomain, wanted: SpiffeId | None) -> None:
        """`wanted`: which of several SPIFFE IDs; None: it must have one alone in the trust domain."""
        self._socket = socket
        self._trust_domain = trust_domain
        self._wanted = wanted

    async def have(self) -> tuple[X509Svid, Bundle]:
        async with Client(str(self._socket), deadline_seconds=UPSTREAM_CALL_SECONDS) as client:
            context = await client.fetch_x509_svids()
        svid = _chosen({each.spiffe_id: each for each in context.svids}, self._wanted, self._trust_domain)
        return svid, Bundle(self._trust_domain, context.bundles.get(self._trust_domain, ()))

    def describe(self) -> Mapping[str, str]:
        return {"socket": str(self._socket)}

    async def close(self) -> None:
        """Nothing is held."""


class OfNode:
    """What the server signs for a node of its own, which this agent is for that alone. It joins when it is needed."""

    def __init__(self, node: SpireNode, clock: Clock, trust_domain: TrustDomain, wanted: SpiffeId | None) -> None:
        self._node = node
        self._clock = clock
        self._trust_domain = trust_domain
        self._wanted = wanted
        self._running: asyncio.Future[None] | None = None
        self._started = asyncio.Event()
        self._svid: X509Svid | None = None

    async def have(self) -> tuple[X509Svid, Bundle]:
        if self._running is None:
            self._running = asyncio.ensure_future(self._run())
        await self._started.wait()
        self._check_joined()
        entry = self._entry()
        if not self._is_good(entry):
            self._svid = await self._node.x509.sign(entry)
        assert self._svid is not None  # it was signed
        return self._svid, self._node.bundle

    def describe(self) -> Mapping[str, str]:
        return {"node": str(self._node.spiffe_id or "not joined yet")}

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
            await self._node.close()

    async def _run(self) -> None:
        """Join once: whoever asks may give up meanwhile, and a join token is good for one try."""
        await self._node.start()
        self._started.set()
        await self._node.run()

    def _check_joined(self) -> None:
        """Raise why it is no node, and what an operator does about it."""
        state = self._node.state
        if state.spiffe_id is None or state.refused:
            why = state.fault or state.refused or "no SPIRE server has answered yet"
            raise Unavailable(why + (f"; {state.remedy}" if state.remedy else ""))

    def _entry(self) -> Entry:
        """The entry by which it asks. Raise NotFound if there is none, or one has to be chosen."""
        entries = {each.spiffe_id: each for each in self._node.entries.values()}
        try:
            # Which of them is marked cannot be told: SPIRE 1.13 gives its nodes `admin` in the place of `downstream`.
            return _chosen(entries, self._wanted, self._trust_domain)
        except NotFound as error:
            self._node.sync_soon()
            raise NotFound(f"{error.public}; register it: {REGISTER} -parentID {self._node.spiffe_id}") from error

    def _is_good(self, entry: Entry) -> bool:
        svid = self._svid
        return (
            svid is not None
            and svid.spiffe_id == entry.spiffe_id
            and self._node.is_fresh(svid)
            and self._node.vouching.of_x509(svid)
        )


def _chosen(found: Mapping[SpiffeId, Found], wanted: SpiffeId | None, trust_domain: TrustDomain) -> Found:
    """The one to ask by. Raise NotFound."""
    ours = {name: each for name, each in found.items() if name.trust_domain == trust_domain}
    if wanted is not None:
        if wanted not in ours:
            raise NotFound(f"the SPIRE server has no entry {str(wanted)!r} for this agent")
        return ours[wanted]
    if not ours:
        raise NotFound(f"the SPIRE server has no entry of {trust_domain.name!r} for this agent")
    if len(ours) > 1:
        raise NotFound(f"the SPIRE server has several entries for this agent, {_told(ours)}: choose one by spiffe_id")
    return next(iter(ours.values()))


def _told(names: Iterable[SpiffeId]) -> str:
    return ", ".join(sorted(map(str, names))[:3])


def hint_of(error: SojournError) -> str:
    """What helps where a server refuses to sign an authority."""
    return f"its entry has to be marked: {REGISTER}" if "authorization denied" in error.public else ""
