"""membership.py: a node's own SVID is had once, and not lost, however the agent stops and whatever its clock says."""

import asyncio
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from fakes.nodes import ShiftedClock, node_of
from fakes.spire_server import FakeSpireServer
from sojourn.runtime.clock import Alarms
from sojourn.upstream.node import NodeSettings, SpireNode
from sojourn.upstream.node_attestation import JoinToken
from structlog.testing import capture_logs


@pytest.fixture
async def server():
    async with FakeSpireServer() as running:
        yield running


class TestStopping:
    """An agent that is stopped while a server attests it has what it is given on disk: a token is good for one try."""

    async def test_while_it_starts(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A stop while a start waits for the server loses nothing."""
        server.delay = 0.5
        starting = asyncio.ensure_future(self._started(server, tmp_path))
        while "AttestAgent" not in server.calls:
            await asyncio.sleep(0.01)
        starting.cancel()
        await asyncio.wait({starting})
        await self._is_kept(server, tmp_path)

    async def test_while_it_runs(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A stop while the running agent joins loses nothing."""
        clock = ShiftedClock()
        server.failing = grpc.StatusCode.UNAVAILABLE
        async with node_of(server, tmp_path, clock=clock) as node:
            server.failing, server.delay = None, 0.5
            clock.ahead += timedelta(seconds=60)
            running = asyncio.ensure_future(node.run())
            while server.calls.count("AttestAgent") < 2:
                await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.wait({running})
        await self._is_kept(server, tmp_path)

    async def test_no_longer_than_it_may(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that does not answer keeps no agent from stopping."""
        monkeypatch.setattr("sojourn.upstream.membership.UPSTREAM_LEAVE_SECONDS", 0.2)
        server.delay = 25
        starting = asyncio.ensure_future(self._started(server, tmp_path))
        while "AttestAgent" not in server.calls:
            await asyncio.sleep(0.01)
        starting.cancel()
        _, left = await asyncio.wait({starting}, timeout=15)
        assert not left

    async def _started(self, server: FakeSpireServer, folder: Path) -> None:
        clock = ShiftedClock()
        given = NodeSettings([server.address], server.bundle, lambda: JoinToken("good"), folder / "node")
        node = SpireNode(given, clock, Alarms(clock))
        try:
            await node.start()
        finally:
            await node.close()

    async def _is_kept(self, server: FakeSpireServer, folder: Path) -> None:
        calls = server.calls.count("AttestAgent")
        server.delay = 0
        async with node_of(server, folder) as node:
            assert node.spiffe_id is not None
        assert calls == server.calls.count("AttestAgent")


class TestClockBehind:
    async def test_what_is_given_is_kept(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A machine whose clock is behind the server's joins all the same, says so until it is set right, and goes on
        by what it was given.
        """
        clock = ShiftedClock()
        clock.wall_ahead = timedelta(minutes=-10)
        with capture_logs() as lines:
            async with node_of(server, tmp_path, clock=clock) as node:
                assert node.spiffe_id is not None
                assert "clock is 5" in node.state.fault
                assert 500 < node.state.clock_behind_seconds < 601
        assert 1 == sum(each["event"] == "node_clock_behind" for each in lines)
        async with node_of(server, tmp_path, clock=clock) as node:
            await node.sync()
            assert "behind the SPIRE server" in node.state.fault
            clock.wall_ahead = timedelta()
            await node.sync()
            assert "" == node.state.fault
        assert 1 == server.calls.count("AttestAgent")

    async def test_by_days(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """An SVID that begins in two days is not this node's."""
        clock = ShiftedClock()
        clock.wall_ahead = timedelta(days=-2)
        async with node_of(server, tmp_path, clock=clock) as node:
            assert node.spiffe_id is None


class TestTwin:
    """Another agent with a copy of what this node has."""

    async def test_they_do_not_attest_for_ever(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Two agents that are the same node attest less and less often, and say what is wrong."""
        clock = ShiftedClock()
        server.reattestable = True
        with capture_logs() as lines:
            async with node_of(server, tmp_path, clock=clock) as node:
                for _ in range(240):  # twenty minutes in which each attestation is ousted by the other's at once
                    server.refusing = "not_active"
                    await node.sync()
                    clock.ahead += timedelta(seconds=5)
                assert "another agent is this node" in node.state.remedy
        assert 4 < server.calls.count("AttestAgent") < 20
        assert "node_twin" in {each["event"] for each in lines}

    async def test_ousted_once(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A node that is ousted once attests anew at once."""
        clock = ShiftedClock()
        async with node_of(server, tmp_path, clock=clock) as node:
            server.refusing = "not_active"
            await node.sync()
            await node.sync()
            assert 2 == server.calls.count("AttestAgent")
            assert "" == node.state.refused

    async def test_now_and_then(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A node that is not taken for active by hours apart attests anew at once each time."""
        clock = ShiftedClock()
        server.agent_ttl = timedelta(days=2)
        async with node_of(server, tmp_path, clock=clock) as node:
            for _ in range(3):
                server.refusing = "not_active"
                await node.sync()
                await node.sync()
                assert "" == node.state.refused
                clock.ahead += timedelta(hours=1)
            assert 4 == server.calls.count("AttestAgent")
