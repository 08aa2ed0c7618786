"""What the SDK's tests share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.fake_agent import ScriptedAgent
from sojourn.sdk.client.client import Client


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


@pytest.fixture
async def agent(socket: Path) -> AsyncIterator[ScriptedAgent]:
    async with ScriptedAgent().serve(socket) as running:
        yield running


@pytest.fixture
async def client(agent: ScriptedAgent, socket: Path) -> AsyncIterator[Client]:
    async with Client(str(socket), deadline_seconds=5) as opened:
        yield opened
