"""The source of the present SVID."""

import asyncio
import ssl
from pathlib import Path

import grpc
import pytest
from fakes.ca import FakeCa
from fakes.fake_agent import Fail, ScriptedAgent, x509_response
from harness.looking import WAIT_SECONDS
from sojourn.errors import NoIdentity, Refused, Unreachable
from sojourn.sdk.client.client import Client
from sojourn.sdk.client.x509_source import X509Source
from sojourn.spiffetls.authorize import authorize_any


async def test_follows(agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
    """Each update is the present SVID at once, and the version grows."""
    first, second = ca.svid(), ca.svid()
    agent.push("FetchX509SVID", x509_response(ca, first))
    async with asyncio.timeout(WAIT_SECONDS), X509Source(client) as source:
        assert first.serial == source.svid.serial
        assert {ca.trust_domain: (ca.root,)} == source.bundles
        before = source.version
        agent.push("FetchX509SVID", x509_response(ca, second))
        assert await source.wait_update(before) > before
        assert second.serial == source.svid.serial


async def test_refused_midway(agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
    """When the agent refuses, the SVID is dropped and contexts wrap nothing (WAPI-26)."""
    agent.push("FetchX509SVID", x509_response(ca, ca.svid()))
    async with asyncio.timeout(WAIT_SECONDS), X509Source(client) as source:
        tls = source.client_context(authorize_any())
        tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
        before = source.version
        agent.push("FetchX509SVID", Fail(grpc.StatusCode.PERMISSION_DENIED, "no identity issued"))
        await source.wait_update(before)
        with pytest.raises(NoIdentity):
            _ = source.svid
        with pytest.raises(ssl.SSLError):
            tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
        before = source.version
        agent.push("FetchX509SVID", x509_response(ca, ca.svid()))
        await source.wait_update(before)
        assert source.svid.spiffe_id.path == "/web"


async def test_outage_keeps(agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
    """While the agent is away the last SVID stays."""
    first, second = ca.svid(), ca.svid()
    agent.push("FetchX509SVID", x509_response(ca, first))
    async with asyncio.timeout(WAIT_SECONDS), X509Source(client) as source:
        before = source.version
        agent.push("FetchX509SVID", Fail(grpc.StatusCode.UNAVAILABLE, "away"), None, x509_response(ca, second))
        assert first.serial == source.svid.serial
        assert before + 1 == await source.wait_update(before)
        assert second.serial == source.svid.serial


async def test_closed(agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
    """A closed source has no SVID."""
    agent.push("FetchX509SVID", x509_response(ca, ca.svid()))
    async with X509Source(client) as source:
        pass
    with pytest.raises(NoIdentity):
        _ = source.svid


async def test_never_ready(tmp_path: Path) -> None:
    """Entering raises the reason when no SVID comes in time."""
    async with Client(str(tmp_path / "none.sock")) as client:
        with pytest.raises(Unreachable):
            await X509Source(client, ready_seconds=0.3).__aenter__()


async def test_for_good(agent: ScriptedAgent, client: Client) -> None:
    """Entering raises at once what no attempt will cure."""
    agent.push("FetchX509SVID", Fail(grpc.StatusCode.UNIMPLEMENTED, "what"))
    with pytest.raises(Refused):
        await X509Source(client).__aenter__()


async def test_restart(socket: Path, ca: FakeCa) -> None:
    """A restarted agent is found again, and its SVID followed."""
    first, second = ca.svid(), ca.svid()
    async with asyncio.timeout(WAIT_SECONDS), Client(str(socket)) as client:
        agent = ScriptedAgent()
        agent.push("FetchX509SVID", x509_response(ca, first))
        source = X509Source(client)
        async with agent.serve(socket):
            await source.__aenter__()
        assert first.serial == source.svid.serial
        before = source.version
        agent = ScriptedAgent()
        agent.push("FetchX509SVID", x509_response(ca, second))
        async with agent.serve(socket):
            await source.wait_update(before)
            assert second.serial == source.svid.serial
            await source.close()
