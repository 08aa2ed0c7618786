"""What the rows are tested on: a real agent and what it issued, or our client and an agent that the test plays."""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from conformance.ground import Issued, Registered, WorkloadWire, issued_in
from fakes.ca import FakeCa
from fakes.fake_agent import ScriptedAgent
from harness.agent import AgentProcess
from harness.nodeagent import AGENTS, NODE, NodeAgent, admin_of, node_agent, server_jwt_key
from harness.raw import Admin, module_agent
from harness.reading import header
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.authority.jwt_keys import JwtKeys
from sojourn.jose.jws import SigningKey
from sojourn.runtime.clock import SystemClock
from sojourn.sdk.client.client import Client

# --- the real agent -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session", params=AGENTS)
def agent(request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    """One agent for all rows, and one that is a node of a SPIRE server. The user who runs the tests is /me there."""
    made = node_agent if request.param == NODE else module_agent
    with made() as running, admin_of(running) as admin:
        admin.register("/me", f"unix:uid:{os.getuid()}", hint="main", jwt_svid_ttl=3_600)
        yield running


@pytest.fixture(autouse=True)
def _of_this_agent(request: pytest.FixtureRequest) -> None:
    """What is the server's to keep is told of who signs alone."""
    marker = request.node.get_closest_marker("own_authority")
    callspec = getattr(request.node, "callspec", None)
    if marker is not None and callspec is not None and callspec.params.get("agent") == NODE:
        pytest.skip(marker.args[0])


@pytest.fixture(scope="session")
def admin(agent: AgentProcess) -> Iterator[Admin]:
    with admin_of(agent) as admin:
        yield admin


@pytest.fixture(scope="session")
def wire(agent: AgentProcess) -> Iterator[WorkloadWire]:
    with WorkloadWire(agent.socket) as wire:
        yield wire


@pytest.fixture(scope="session")
def registered(admin: Admin) -> Registered:
    """`with registered("/path", …)`: a further identity of the user who runs the tests."""

    @contextlib.contextmanager
    def register(path: str, *selectors: str, **fields: Any) -> Iterator[types.Entry]:
        made = admin.register(path, f"unix:uid:{os.getuid()}", *selectors, **fields)
        try:
            yield made
        finally:
            admin.delete(made.id)

    return register


@pytest.fixture(scope="session")
def jwt_key(agent: AgentProcess, token: str) -> SigningKey:
    """The key that signs its JWT-SVIDs, to sign what nobody would."""
    if isinstance(agent, NodeAgent):
        return server_jwt_key(agent.server, header(token)["kid"])
    return JwtKeys(agent.data_dir / "keys" / "jwt.pem", SystemClock(), timedelta(days=30)).active.key


@pytest.fixture(scope="session")
def issued(wire: WorkloadWire) -> Issued:
    """What /me has."""
    return issued_in(wire.x509().svids[0])


@pytest.fixture(scope="session")
def token(wire: WorkloadWire) -> str:
    """A JWT-SVID of /me for the audience `db`."""
    return wire.jwt("db").svids[0].svid


# --- an agent that the test plays -----------------------------------------------------------------------------------


@pytest.fixture
def fake_socket(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


@pytest.fixture
async def fake_agent(fake_socket: Path) -> AsyncIterator[ScriptedAgent]:
    async with ScriptedAgent().serve(fake_socket) as running:
        yield running


@pytest.fixture
async def client(fake_agent: ScriptedAgent, fake_socket: Path) -> AsyncIterator[Client]:
    async with Client(str(fake_socket), deadline_seconds=5) as opened:
        yield opened


@pytest.fixture(scope="session")
def ca() -> FakeCa:
    return FakeCa.make("example.org")


@pytest.fixture(scope="session")
def other_ca() -> FakeCa:
    return FakeCa.make("other.example")
