"""For how long workloads are served whose node's server is away: by the clock, of which a test has hours go by."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from fakes.journals import FakeAuditStore
from fakes.nodes import ShiftedClock, node_of
from fakes.registrations import NODE
from fakes.spire_server import FakeSpireServer
from sojourn.agent.node_signing import NodeSigning
from sojourn.audit.journal import Audit
from sojourn.errors import Unavailable
from sojourn.identity.entries import Entry
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.limits import ROTATION_JITTER_SHARE, UPSTREAM_POLL_MAX_SECONDS
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.x509svid import X509Svid

WHOLE_SECONDS = timedelta(seconds=5)  # certificates' times are such, and some go by while a test looks
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


class Watched:
    """A workload that watches its X.509-SVID on a node, a minute at a time."""

    def __init__(self, server: FakeSpireServer, clock: ShiftedClock, alarms: Alarms, issuing: SvidIssuer, node) -> None:
        self.server, self.clock, self.node = server, clock, node
        self._alarms, self._issuing = alarms, issuing

    @property
    def entry(self) -> Entry:
        return self.node.entries["web"]

    @property
    def svid(self) -> X509Svid:
        """What it is served. Raise Unavailable."""
        found = self._issuing.x509.look(self.entry)
        if found is None:
            raise Unavailable("it has to be waited for")
        return found

    @property
    def left(self) -> timedelta:
        return self.svid.not_after - self.clock.now()

    async def fetched(self) -> X509Svid:
        svid = await self._issuing.x509.get(self.entry)
        self._issuing.watch(self.entry.key)
        return svid

    async def minute(self, count: int = 1) -> None:
        """Let it go by: the node syncs, and what is due begins."""
        for _ in range(count):
            self.clock.ahead += MINUTE
            self.server.ahead = self.clock.ahead
            await self.node.sync()
            self._alarms.ring_due()

    def served(self) -> bool:
        try:
            return self.left > timedelta()
        except Unavailable:
            return False

    async def until(self, look: Callable[[], bool]) -> None:
        ends = time.monotonic() + 30
        while not look():
            assert time.monotonic() < ends
            self._alarms.ring_due()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def watched(folder: Path, renew_at: float) -> AsyncIterator[Watched]:
    async with FakeSpireServer() as server:
        server.register("web")
        server.reattestable = True
        server.agent_ttl = HOUR
        clock = ShiftedClock()
        async with node_of(server, folder, clock=clock, renew_at=renew_at) as node:
            audit = Audit(FakeAuditStore(), clock)
            signing = NodeSigning(node, "x509pop", NODE, 0, audit, clock)
            alarms = Alarms(clock)
            issuing = SvidIssuer(signing.authority, signing.signers, clock, alarms, audit, renew_at=renew_at)
            workload = Watched(server, clock, alarms, issuing, node)
            await workload.fetched()
            yield workload


@pytest.mark.parametrize(("renew_at", "at_least"), [(0.5, 27), (0.25, 42)])
async def test_what_is_left_whenever_the_server_goes(tmp_path: Path, renew_at: float, at_least: int) -> None:
    """An X.509-SVID of one hour has 27 minutes left at any moment, and 42 where it is renewed at a quarter of its life:
    so long is a workload served whose server goes away then.
    """
    jitter = HOUR * (1 - renew_at - ROTATION_JITTER_SHARE / 2)
    assert timedelta(minutes=at_least) <= jitter
    async with watched(tmp_path, renew_at) as workload:
        serials = set()
        for _ in range(120):
            await workload.minute()
            await workload.until(lambda: workload.left >= timedelta(minutes=at_least) - WHOLE_SECONDS)
            serials.add(workload.svid.serial)
        assert len(serials) >= 4


async def test_an_hour_without_a_server(tmp_path: Path) -> None:
    """A server that is away for an hour: the workload has the same SVID to its end, is told to come again then, and is
    served within half a minute of the server's return. The node's own SVID has ended meanwhile, and it is a node again.
    """
    async with watched(tmp_path, 0.5) as workload:
        await workload.minute(20)
        before = workload.svid
        workload.server.failing = grpc.StatusCode.UNAVAILABLE
        served = 0
        for _ in range(60):
            await workload.minute()
            served += workload.served()
            if workload.served():
                assert before is workload.svid
        assert served in {39, 40}  # of an hour that had gone for twenty minutes
        with pytest.raises(Unavailable):
            await workload.fetched()
        state = workload.node.state
        assert (59, True) == (round((state.away_seconds or 0) / 60), "told to fail" in state.fault)
        assert 1 == state.entries
        workload.server.failing = None
        workload.clock.ahead += timedelta(seconds=UPSTREAM_POLL_MAX_SECONDS * 1.1)  # the longest pause of its tries
        workload.server.ahead = workload.clock.ahead
        await workload.node.sync()
        assert (None, "") == (workload.node.state.away_seconds, workload.node.state.fault)
        await workload.until(workload.served)
        assert before.serial != workload.svid.serial
