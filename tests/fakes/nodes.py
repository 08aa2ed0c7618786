"""Nodes of a `FakeSpireServer`, which sync when a test says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from fakes.spire_server import FakeSpireServer
from sojourn.runtime.clock import Alarms, SystemClock
from sojourn.upstream.node import NodeSettings, SpireNode
from sojourn.upstream.node_attestation import JoinToken


class ShiftedClock(SystemClock):
    """The machine's clocks, ahead by what a test says; the wall clock by `wall_ahead` more."""

    ahead = timedelta()
    wall_ahead = timedelta()

    def now(self) -> Any:
        return super().now() + self.ahead + self.wall_ahead

    def boot(self) -> float:
        return super().boot() + self.ahead.total_seconds()


@asynccontextmanager
async def node_of(
    server: FakeSpireServer, folder: Path, *, clock: ShiftedClock | None = None, **changes: Any
) -> AsyncIterator[SpireNode]:
    """A node that has started. `changes`: other settings than what they are here."""
    clock = clock or ShiftedClock()
    alarms = Alarms(clock)
    given = {
        "servers": [server.address],
        "bootstrap": server.bundle,
        "attestor": lambda: JoinToken("good"),
        "folder": folder / "node",
        "poll": timedelta(seconds=5),
        **changes,
    }
    ringing = asyncio.ensure_future(alarms.run())
    node = SpireNode(NodeSettings(**given), clock, alarms)
    await node.start()
    try:
        yield node
    finally:
        await node.close()
        ringing.cancel()
        await asyncio.wait({ringing})
