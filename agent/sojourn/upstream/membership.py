"""That this agent is a node of the server: it joins, renews its own SVID in time, and knows when it is not taken for
one any more.

None of that ends the agent. What it cannot mend itself is told once, with what an operator does about it, and tried
again in its time.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

import structlog

from sojourn.errors import NodeRefused, SojournError, Unavailable, UpstreamUnavailable
from sojourn.limits import (
    ROTATION_JITTER_SHARE,
    UPSTREAM_BANNED_SECONDS,
    UPSTREAM_LEAVE_SECONDS,
    UPSTREAM_REFUSED_SECONDS,
    UPSTREAM_RETRY_MAX_SECONDS,
    UPSTREAM_RETRY_SECONDS,
    UPSTREAM_TWIN_MAX_SECONDS,
    UPSTREAM_TWIN_SECONDS,
)
from sojourn.runtime.backoff import pause_after
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.x509svid import X509Svid
from sojourn.upstream.connection import BANNED, MUST_REATTEST, NOT_ACTIVE, ServerConnection
from sojourn.upstream.node_attestation import AttestedNode, NodeAttestor, attest, renew
from sojourn.upstream.server_link import Work

log = structlog.get_logger()
_REMEDY: Final = (
    "with a join token: make another with `spire-server token generate`, set it, and start this agent again; otherwise"
    " see why the server does not attest it"
)
# What else an operator does, by how the node attests.
_REMEDIES: Final = {
    "k8s_psat": (
        "see that the server's k8s_psat has this cluster, the service account of this pod and the audience of its"
        " token, which is read again at the next try"
    ),
}
Made = TypeVar("Made")


class Link(Protocol):
    """The way to the servers."""

    def call(self, work: Work[Made], /, *, renewing: bool = False) -> Coroutine[Any, Any, Made]: ...
    def call_unshown(self, work: Work[Made], /) -> Coroutine[Any, Any, Made]: ...


class Membership:
    """A node's own SVID. `see_to` has to be awaited again and again, by one alone."""

    def __init__(
        self,
        attestor: Callable[[], NodeAttestor],
        trusted: Callable[[], Bundle],
        vouched: Callable[[X509Svid], bool],
        clock: Clock,
        save: Callable[[AttestedNode], Awaitable[None]],
        *,
        renew_at: float,
    ) -> None:
        """`attestor`: makes what proves which node this is, in a thread, each time anew; raises InvalidInput if that
        cannot be read. `trusted`: the bundle of now. `vouched`: whether an SVID's authority is good still. `save` keeps
        an SVID before it is used, since the one before is worth nothing from then on. `renew_at`: the share of its life
        after which an SVID is renewed.
        """
        self._attestor = attestor
        self._trusted = trusted
        self._vouched = vouched
        self._clock = clock
        self._save = save
        self._renew_at = renew_at
        self._jitter = self._drawn()
        self._having: asyncio.Future[None] | None = None  # another SVID
        self._closed = False
        self._kind = ""  # how it has attested, or tried to; empty: it has not
        self._failures = 0
        self._not_before = 0.0  # on the boot clock: what has failed is tried again from then on
        self._said = ""
        self._had_at = float("-inf")  # on the boot clock: when it had its SVID
        self._ousted = 0  # times in a row that another had one for the same node soon after that
        self.node: AttestedNode | None = None
        self.refusal: NodeRefused | None = None
        self.fault: SojournError | None = None  # why it has not joined, or not renewed
        self.on_svid: Hooks[[AttestedNode]] = Hooks()
        self.on_refused: Hooks[[NodeRefused]] = Hooks()
        self.on_accepted: Hooks[[]] = Hooks()  # after it was refused

    @property
    def own_svid(self) -> X509Svid:
        """Raise Unavailable if there is none."""
        if self.node is None:
            why = f": {self.fault.public}" if self.fault is not None else ""
            raise Unavailable(f"this node has not joined its SPIRE server yet{why}")
        return self.node.svid

    @property
    def banned(self) -> bool:
        return self.refusal is not None and self.refusal.reason_code == BANNED

    @property
    def remedy(self) -> str:
        """What an operator does about why it is refused, or has not joined; empty: nothing."""
        soon = self._clock.boot() - self._had_at < UPSTREAM_TWIN_SECONDS
        if self._ousted > 1 and (soon or self.refusal is not None):
            return (
                "another agent is this node: it has a copy of this one's data folder, or of its certificate and key."
                " Stop one of the two, and have it join as a node of its own"
            )
        if self.banned:
            name = "ID" if self.node is None else self.node.spiffe_id
            return f"`spire-server agent evict -spiffeID {name}` lets it join again; `spire-server agent list` names it"
        if self.refusal is not None or (self.fault is not None and not isinstance(self.fault, UpstreamUnavailable)):
            return _REMEDIES.get(self._kind, _REMEDY)
        return ""

    @property
    def clock_behind_seconds(self) -> float:
        """How far this machine's clock is behind the server's at the least, by when this node's own SVID begins."""
        if self.node is None:
            return 0.0
        return max(0.0, (self.node.svid.not_before - self._clock.now()).total_seconds())

    async def settled(self) -> None:
        """Return when no other SVID is being had."""
        if self._having is not None:
            await asyncio.wait({self._having})

    async def close(self) -> None:
        """Begin nothing more. Returns when no SVID is being had: a server gives one for a join token once, and has
        forgotten the one before; what it gives within UPSTREAM_LEAVE_SECONDS is kept.
        """
        self._closed = True
        having = self._having
        if having is not None:
            await asyncio.wait({having}, timeout=UPSTREAM_LEAVE_SECONDS)
            having.cancel()
            await asyncio.wait({having})

    def take(self, node: AttestedNode) -> None:
        """Have what was kept of an earlier run."""
        self.node = node

    def refuse(self, refusal: NodeRefused) -> None:
        """The server does not take us for its node, as it has answered to some call."""
        known, self.refusal = self.refusal, refusal
        if known is not None and known.reason_code == refusal.reason_code:
            return
        self._not_before = self._clock.boot() + UPSTREAM_BANNED_SECONDS if self.banned else self._after_ousted(refusal)
        self.on_refused.tell(refusal)
        if self.banned:
            log.error("node_banned", reason=refusal.public, remedy=self.remedy)
        else:
            log.warning("node_refused", reason_code=refusal.reason_code, reason=refusal.public)

    def _after_ousted(self, refusal: NodeRefused) -> float:
        """From when on it may attest anew, on the boot clock: at once, unless another agent does so in turn with it."""
        now = self._clock.boot()
        soon = now - self._had_at < UPSTREAM_TWIN_SECONDS
        self._ousted = self._ousted + 1 if soon and refusal.reason_code == NOT_ACTIVE else 0
        if self._ousted < 2:  # one may be a restart, or a copy that is gone
            return 0.0
        log.error("node_twin", spiffe_id=str(self.own_svid.spiffe_id), remedy=self.remedy)
        pause = pause_after(self._ousted - 2, UPSTREAM_REFUSED_SECONDS, UPSTREAM_TWIN_MAX_SECONDS, random.random())  # noqa: S311
        return now + pause

    async def see_to(self, link: Link) -> None:
        """Join, or renew, if it is time to. Raise why it has not joined; what fails while the SVID is good is noted."""
        if self._closed or self._clock.boot() < self._not_before:
            self.check_joined()
            return
        try:
            if self._may_be_taken_back:
                await self._ask_again(link)
            elif self._lost:
                await self._join(link)
            elif self._due:
                await self._renew(link)
            else:
                self.fault = self._behind()  # the wall clock may have been set right
        except SojournError as error:
            self._failed(error)
        self.check_joined()

    def check_joined(self) -> None:
        """Raise why it is no node now."""
        if self._lost:
            why = self.refusal or self.fault or Unavailable("this node's own SVID has ended, and there is no new one")
            raise why.with_traceback(None)  # it would grow: the same is raised for as long as it is so

    def pause(self) -> float:
        """Seconds until something is due here."""
        due = max(0.0, self._not_before - self._clock.boot())
        if self.banned or self._lost or self.node is None:
            return due
        return max(due, (self._renew_from(self.node.svid) - self._clock.now()).total_seconds(), 0.0)

    # --- what is due ------------------------------------------------------------------------------------------------

    @property
    def _lost(self) -> bool:
        """It is no node, or its SVID is of no use any more."""
        return self.node is None or self.refusal is not None or self._clock.now() >= self.node.svid.not_after

    @property
    def _due(self) -> bool:
        svid = self.own_svid
        return self._clock.now() >= self._renew_from(svid) or not self._vouched(svid)

    def _renew_from(self, svid: X509Svid) -> datetime:
        life = svid.not_after - svid.not_before
        return svid.not_before + life * self._renew_at * self._jitter

    def _drawn(self) -> float:
        return 1 - random.uniform(0, ROTATION_JITTER_SHARE)  # noqa: S311  # of a fleet that has joined at once

    @property
    def _may_be_taken_back(self) -> bool:
        """It was refused, has tried what it can, and its SVID might be good for the server again."""
        refusal = self.refusal
        return refusal is not None and (self.banned or (self._failures > 0 and refusal.reason_code != MUST_REATTEST))

    # --- what is done -----------------------------------------------------------------------------------------------

    async def _join(self, link: Link) -> None:
        attestor = await asyncio.to_thread(self._attestor)
        self._kind = attestor.type
        await self._had(
            link.call_unshown(lambda server: attest(server, attestor, self._trusted(), self._clock.now())),
            "node_attested",
        )

    async def _renew(self, link: Link) -> None:
        node = self.node
        assert node is not None  # `_due` is of one
        if node.reattestable:
            await self._join(link)
            return
        await self._had(
            link.call(lambda server: renew(server, node, self._trusted(), self._clock.now()), renewing=True),
            "node_renewed",
        )

    async def _had(self, making: Coroutine[Any, Any, AttestedNode], event: str) -> None:
        """Go through with it although whoever waits may have gone: what it is had by may be worth nothing then."""
        having = self._having = asyncio.ensure_future(self._have(making, event))
        having.add_done_callback(self._was_had)
        await asyncio.shield(having)

    def _was_had(self, having: asyncio.Future[None]) -> None:
        if self._having is having:
            self._having = None
        if not having.cancelled():
            having.exception()  # whoever still waits has raised it

    async def _have(self, making: Coroutine[Any, Any, AttestedNode], event: str) -> None:
        node = await making
        await self._save(node)
        self.node, self._jitter, self._had_at = node, self._drawn(), self._clock.boot()
        self._accepted()
        self.fault = self._behind()
        if self.fault is not None:
            log.error("node_clock_behind", reason=self.fault.public, begins=node.svid.not_before.isoformat())
        if not self._vouched(node.svid):  # the server goes on signing by what it has tainted
            self._not_before = self._clock.boot() + UPSTREAM_RETRY_MAX_SECONDS
        log.info(event, spiffe_id=str(node.spiffe_id), serial=node.svid.serial, ends=node.svid.not_after.isoformat())
        self.on_svid.tell(node)

    def _behind(self) -> SojournError | None:
        """What is amiss if this node's own SVID begins later than now."""
        seconds = self.clock_behind_seconds
        if not seconds:
            return None
        return Unavailable(
            f"this machine's clock is {seconds:.0f} s or more behind the SPIRE server's: set it right, or what the"
            " server signs is not good here yet"
        )

    async def _ask_again(self, link: Link) -> None:
        """It was refused: slowly look whether it is not any more."""
        self._not_before = self._clock.boot() + (UPSTREAM_BANNED_SECONDS if self.banned else UPSTREAM_REFUSED_SECONDS)
        if self.node is None or self._clock.now() >= self.node.svid.not_after:
            await self._join(link)
            return
        try:
            await link.call(ServerConnection.check_node)
        except NodeRefused as error:
            if error.reason_code == BANNED:
                return
            self.refuse(error)  # it may be another reason by now
            await self._join(link)
        else:
            self._accepted()

    def _accepted(self) -> None:
        was, self.refusal = self.refusal, None
        self.fault, self._failures, self._not_before, self._said = None, 0, 0.0, ""
        if was is not None:
            log.info("node_accepted", after=was.reason_code)
            self.on_accepted.tell()

    def _failed(self, error: SojournError) -> None:
        """Try again later: soon if nobody answers; in a while if the answer is no, as somebody has to do something."""
        self.fault = error
        if isinstance(error, NodeRefused):
            news = self.refusal is None
            self.refuse(error)
            if news and not self.banned:
                return  # it joins anew at once
        if self.banned:
            pause = UPSTREAM_BANNED_SECONDS
        elif isinstance(error, UpstreamUnavailable):
            pause = pause_after(self._failures, UPSTREAM_RETRY_SECONDS, UPSTREAM_RETRY_MAX_SECONDS, random.random())  # noqa: S311
        else:
            pause = UPSTREAM_REFUSED_SECONDS
        self._failures += 1
        self._not_before = self._clock.boot() + pause
        if isinstance(error, UpstreamUnavailable) or self.banned or error.code == self._said:
            return  # who is away is told by the sync, and nothing is told twice
        self._said = error.code
        event = "node_not_attested" if self._lost else "node_not_renewed"
        log.error(event, code=error.code, reason=error.public, detail=error.detail, remedy=self.remedy)
