"""Validators on other machines: SVIDs that end or are revoked, restarts, and whoever holds the listener up."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator

import pytest
from cryptography import x509
from fakes.certificates import san
from harness import forging
from harness.agent import AgentProcess
from harness.callers import Caller
from harness.forging import connection, leaf, root_of
from harness.looking import OF_CALLERS, until
from harness.program import Program
from harness.remotes import (
    LISTEN,
    SERVICE,
    WATCHER,
    Stream,
    answered,
    ended,
    eventually,
    failures,
    listening,
    live,
    node,
    refusal,
    refusals,
    remote,
    silent,
)
from harness.taskagent import TICKETS, make_agent
from sojourn import Client, RemoteAgent, TaskVerifier, X509Source
from sojourn.authority.x509_profile import signer_id
from sojourn.errors import Refused, Unavailable, Unreachable
from sojourn.limits import REMOTE_HANDSHAKES_PER_ADDRESS
from sojourn.sdk.guard.task_feed import TaskFeed

pytestmark = [pytest.mark.full, pytest.mark.forked]


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    """An agent with a listener, on which this user is /agent/triage."""
    with listening() as agent:
        yield agent


@pytest.fixture
def own() -> Iterator[AgentProcess]:
    """The same for one test."""
    with listening() as agent:
        yield agent


# --- when that changes ----------------------------------------------------------------------------------------------


async def test_a_revoked_svid(own: AgentProcess) -> None:
    """A stream ends when its caller's SVID is revoked, and the SVID opens no other; the SDK goes on with the next one."""
    async with (
        Client(own.socket) as client,
        X509Source(client) as source,
        RemoteAgent(own.tcp, node(own), source) as agent,
        TaskFeed(agent, [TICKETS]) as feed,
    ):
        await feed.wait_ready(20)
        revoked = source.svid
        async with connection(own.tcp, revoked) as opened:
            stream = Stream(opened)
            await stream.hear("snapshot")
            own.run("svid", "revoke", "--serial", revoked.serial)
            error = await stream.end()
            assert ("svid_refused", "the X.509-SVID of this connection is revoked") == (error.remote_code, str(error))
        async with connection(own.tcp, revoked) as opened:
            error = await refusal(opened)
            assert (True, "svid_refused") == (isinstance(error, Refused), error.remote_code)
        await eventually(lambda: source.svid.serial != revoked.serial)
        async with connection(own.tcp, source.svid) as opened:
            assert await answered(opened)
        await feed.wait_ready(30)
        assert feed.fresh


async def test_an_svid_that_ends(shared: AgentProcess) -> None:
    """A stream ends with its caller's SVID, and says that; nothing is answered on that connection any more."""
    async with connection(shared.tcp, leaf(root_of(shared), seconds=6, san=(san(SERVICE), False))) as opened:
        stream = Stream(opened)
        await stream.hear("snapshot")
        error = await stream.end()
        assert ("svid_expired", True) == (error.remote_code, "has ended: connect again" in str(error))
        assert isinstance(await refusal(opened), Unavailable | Unreachable)


async def test_following_over_the_end_of_an_svid(own: AgentProcess) -> None:
    """The SDK's feed goes on, with the next SVID, when the one with which it was begun has ended."""
    entry = own.json("entry", "list")["entries"][0]
    own.run("entry", "update", entry["id"], "--x509-svid-ttl", "10s")
    async with Client(own.socket) as client, X509Source(client) as source:
        await eventually(lambda: (source.svid.not_after - source.svid.leaf.not_valid_before_utc).total_seconds() < 60)
        async with RemoteAgent(own.tcp, node(own), source) as agent, TaskVerifier(agent, TICKETS) as verifier:
            await verifier.feed.wait_ready(20)
            serials, ends = {source.svid.serial}, asyncio.get_running_loop().time() + 25
            while asyncio.get_running_loop().time() < ends:
                serials.add(source.svid.serial)
                await asyncio.sleep(0.1)
            assert len(serials) > 2
            await verifier.feed.wait_ready(20)
            async with client.task("triage-ticket") as task:
                assert task.id == (await verifier.verify((await task.token()).token)).task_id


def served(agent: AgentProcess) -> x509.Certificate:
    """The certificate that the listener shows now."""
    with silent(agent) as plain, forging.context(None).wrap_socket(plain) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


async def test_the_listener_s_own_certificate(own: AgentProcess) -> None:
    """It is rotated without a restart, over a new root and a taint too, and the streams that are open go on.

    When the old root is revoked, the streams of those whom it vouched for end, and the others go on.
    """
    old = root_of(own)
    first_root = own.json("authority", "show")["keys"][0]["authority_id"]
    async with connection(own.tcp, leaf(old, san=(san(SERVICE), False))) as opened:
        stream = Stream(opened)
        await stream.hear("snapshot")
        first = served(own)
        own.run("svid", "rotate", "--all")
        second = served(own)
        made = own.json("authority", "prepare", "x509")["authority_id"]
        own.run("authority", "activate", made)
        own.run("authority", "taint", first_root)
        third = served(own)
        assert 3 == len({each.serial_number for each in (first, second, third)})
        assert signer_id(second) == signer_id(first) != signer_id(third)
        with Caller(own.socket) as holder:
            task = holder.ask("begin", type="triage-ticket")["id"]
            async with asyncio.timeout(30):
                while task not in {state.id for state in (await stream.hear("delta")).delta.tasks}:
                    pass
        async with remote(own) as agent, TaskFeed(agent, [TICKETS]) as feed:
            await feed.wait_ready(20)
            own.run("authority", "revoke", first_root)
            error = await stream.end()
            assert ("svid_refused", "the authority that signed the X.509-SVID is revoked") == (
                error.remote_code,
                str(error),
            )
            async with connection(own.tcp, leaf(old, san=(san(SERVICE), False))) as again:
                assert isinstance(await refusal(again), Unavailable | Unreachable)
            await eventually(lambda: feed.fresh)


async def test_the_agent_restarts() -> None:
    """A feed over TCP begins anew by itself after a restart of the agent, with a later epoch."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with make_agent(extra=LISTEN.replace("127.0.0.1:0", address)) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        async with remote(agent) as far, TaskFeed(far, [TICKETS]) as feed:
            await feed.wait_ready(20)
            epoch = feed.epoch
            for stop in (signal.SIGKILL, signal.SIGTERM):
                await asyncio.to_thread(agent.stop, stop)
                await eventually(lambda: not feed.fresh)
                await asyncio.to_thread(agent.start)
                await feed.wait_ready(30)
                assert epoch < feed.epoch
                epoch = feed.epoch
        assert [] == failures(agent)


async def test_silent_connections(own: AgentProcess) -> None:
    """Connections that say nothing hold up nobody, are no more than so many, and are ended after a while."""
    before = own.open_files()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(silent(own)) for _ in range(REMOTE_HANDSHAKES_PER_ADDRESS // 2)]
        async with connection(own.tcp, leaf(root_of(own), san=(san(SERVICE), False))) as opened:
            assert await answered(opened)
        more = [stack.enter_context(silent(own)) for _ in range(REMOTE_HANDSHAKES_PER_ADDRESS)]
        assert await asyncio.to_thread(ended, more[-1])
        for each in held:
            assert await asyncio.to_thread(ended, each)
        async with connection(own.tcp, leaf(root_of(own), san=(san(SERVICE), False))) as opened:
            assert await answered(opened)
    assert "too many handshakes of this address are under way" in refusals(own)
    before.await_closed(*OF_CALLERS)


async def test_rubbish(shared: AgentProcess) -> None:
    """What is not TLS, and TLS that does not speak HTTP/2, is closed; the next caller is answered."""
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 100, b"\0" * 5000):
        with silent(shared) as plain:
            plain.sendall(said)
            assert await asyncio.to_thread(ended, plain)
    made = leaf(root_of(shared), san=(san(SERVICE), False))
    context = forging.context(made)
    context.set_alpn_protocols(["http/1.1"])
    with silent(shared) as plain, context.wrap_socket(plain) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.to_thread(ended, tls)
    async with connection(shared.tcp, made) as opened:
        assert await answered(opened)


async def test_a_validator_that_hangs(own: AgentProcess) -> None:
    """A validator that is stopped holds up no other, and hears the whole state when it goes on."""
    argv = [sys.executable, WATCHER, own.socket, own.tcp, node(own), TICKETS]
    with Program(argv, own.environment) as hung, Caller(own.socket) as holder:
        assert "ready" == hung.hear()["event"]
        async with remote(own) as agent, TaskFeed(agent, [TICKETS]) as feed:
            await feed.wait_ready(20)
            os.kill(hung.pid, signal.SIGSTOP)
            try:
                for _ in range(5):
                    task = holder.ask("begin_process", type="triage-ticket")["id"]
                    await eventually(lambda task=task: live(feed, task))
                    own.run("task", "revoke", task)
                    await eventually(lambda task=task: not live(feed, task))
            finally:
                os.kill(hung.pid, signal.SIGCONT)
        last = holder.ask("begin_process", type="triage-ticket")["id"]

        def heard() -> bool:
            line = hung.hear()
            return line.get("id") == last and line["live"]

        until(heard, "the task that was begun last", 30)


def test_it_drains(own: AgentProcess) -> None:
    """The agent ends in good time and order while validators follow it."""
    argv = [sys.executable, WATCHER, own.socket, own.tcp, node(own), TICKETS]
    with Program(argv, own.environment) as watcher:
        assert "ready" == watcher.hear()["event"]
        assert 0 == own.stop()
