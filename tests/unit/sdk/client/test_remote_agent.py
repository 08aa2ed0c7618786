"""RemoteAgent and the bridge below it."""

import asyncio
import os
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from fakes.ca import FakeCa
from fakes.task_feed import AUDIENCE
from sojourn.errors import InvalidInput, InvalidSpiffeId, Unreachable
from sojourn.sdk.client.remote_agent import RemoteAgent
from sojourn.sdk.client.x509_source import Present, X509Source
from sojourn.spiffetls.authorize import Authorize, authorize_any
from sojourn.spiffetls.bridge import Bridge
from sojourn.spiffetls.context import SpiffeContext
from sojourn.workloadapi.messages import X509Context, X509SvidWithHint

NODE = "spiffe://example.org/node"
CONNECT = (
    "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(20); print(s.recv(1))"
)


class Source:
    """An SVID that does not change."""

    def __init__(self, ca: FakeCa, path: str = "/web") -> None:
        svid = ca.svid(path)
        shown = X509SvidWithHint(svid.spiffe_id, svid.chain, svid.key)
        self.present = Present(1, X509Context((shown,), {ca.trust_domain: (ca.root,)}))

    def client_context(self, authorize: Authorize) -> ssl.SSLContext:
        return SpiffeContext(self, authorize, server_side=False)


def source(ca: FakeCa) -> X509Source:
    return cast("X509Source", Source(ca))


@pytest.mark.parametrize(
    "address", ["", "host", ":1", "host:", "host:x", "host:0", "host:65536", "host:-1", "host:\u0661"]
)
def test_addresses(ca: FakeCa, address: str) -> None:
    """What is not HOST:PORT is refused at once."""
    with pytest.raises(InvalidInput, match="is not HOST:PORT"):
        RemoteAgent(address, NODE, source(ca))


def test_ids(ca: FakeCa) -> None:
    """What is no SPIFFE ID cannot be expected."""
    with pytest.raises(InvalidSpiffeId):
        RemoteAgent("host:1", "node", source(ca))


async def test_not_open(ca: FakeCa) -> None:
    """Outside of `async with` a call says how to use it."""
    with pytest.raises(InvalidInput, match=r"use it as `async with RemoteAgent\(…\) as agent`"):
        await RemoteAgent("host:1", NODE, source(ca)).validate_token("x", AUDIENCE)


async def test_it_closes_at_once(ca: FakeCa) -> None:
    """An agent that closes the connection without a word is said to do so, by its address and not the bridge's."""

    async def close(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.close()

    context = SpiffeContext(Source(ca, "/node"), authorize_any(), server_side=True)
    context.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=context)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with RemoteAgent(address, NODE, source(ca)) as agent:
        with pytest.raises(Unreachable, match=f"the agent at {address} closes the connection: its log says why"):
            await agent.validate_token("x", AUDIENCE)
    server.close()
    await server.wait_closed()


async def test_the_bridge_is_ours_alone() -> None:
    """The bridge's socket lies in a folder that no other user enters, and another process of this user is closed out."""
    bridge = Bridge("127.0.0.1:1", ssl.create_default_context())
    await bridge.open()
    folder = Path(bridge.path).parent
    assert (0o700, os.geteuid()) == (stat.S_IMODE(folder.stat().st_mode), folder.stat().st_uid)
    argv = [sys.executable, "-c", CONNECT, bridge.path]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60, check=False)
    assert "b''" in done.stdout or "ConnectionResetError" in done.stderr
    assert "" == bridge.failure  # it has not even tried
    await bridge.close()
    assert not folder.exists()


async def test_an_agent_that_does_not_answer(ca: FakeCa, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that accepts and then says nothing is given up, and that is said."""
    monkeypatch.setattr("sojourn.spiffetls.bridge.REMOTE_HANDSHAKE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        async with RemoteAgent(address, NODE, source(ca), deadline_seconds=15) as agent:
            with pytest.raises(Unreachable, match=f"no TLS connection to the agent at {address}: "):
                await agent.validate_token("x", AUDIENCE)
