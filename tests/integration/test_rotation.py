"""Certificates that are short-lived are renewed in time, and nobody who uses them notices."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from harness.agent import AgentProcess
from harness.looking import until
from harness.program import Program, published
from harness.raw import Admin, Wire, module_agent
from sojourn import Client, X509Source, authorize_id

OTHER = 4901
ID = "spiffe://example.org"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    """The tests themselves are /python here, with certificates of ten seconds."""
    with module_agent() as running, Admin(running.admin_socket) as admin:
        admin.register("/python", f"unix:uid:{os.getuid()}", x509_svid_ttl=10)
        admin.register("/go", f"unix:uid:{OTHER}", x509_svid_ttl=10)
        yield running


@pytest.fixture(scope="module")
def client(agent: AgentProcess, go_client: Path) -> Path:
    return published(go_client, agent.folder, "client")


def leaf(svid: object) -> x509.Certificate:
    data: bytes = svid.x509_svid  # type: ignore[attr-defined]
    return x509.load_der_x509_certificate(data[: 4 + int.from_bytes(data[2:4], "big")])


@pytest.mark.forked
def test_streams_hear_of_it_together(agent: AgentProcess) -> None:
    """At a rotation every open stream gets one message with the same new certificate, while the old one is good."""
    with Wire(agent.socket) as one, Wire(agent.socket) as two:
        streams = [one.x509_stream(), two.x509_stream()]
        [old] = {next(stream).svids[0].x509_svid for stream in streams}
        messages = [next(stream) for stream in streams]
        [new] = {message.svids[0].x509_svid for message in messages}
        assert old != new
        kept = [one.x509(), two.x509()]
    before, after = (
        x509.load_der_x509_certificate(data[: 4 + int.from_bytes(data[2:4], "big")]) for data in (old, new)
    )
    assert {new} == {message.svids[0].x509_svid for message in kept}
    assert before.not_valid_before_utc < after.not_valid_before_utc < before.not_valid_after_utc
    assert before.public_key() != after.public_key()
    assert messages[0].svids[0].bundle == messages[1].svids[0].bundle


def test_status_tells_when(agent: AgentProcess) -> None:
    """The agent's status shows each certificate in use with its serial and when it is renewed, before its end."""
    with Wire(agent.socket) as wire, Admin(agent.admin_socket) as admin:
        stream = wire.x509_stream()
        certificate = leaf(next(stream).svids[0])
        [svid] = [each for each in admin.status().svids if each.serial == f"{certificate.serial_number:x}"]
        assert f"{ID}/python" == svid.spiffe_id
        assert int(certificate.not_valid_after_utc.timestamp()) == svid.not_after
        assert svid.rotate_at < svid.not_after


@pytest.mark.forked
def test_nothing_is_renewed_for_nobody(agent: AgentProcess) -> None:
    """A certificate that nobody watches is dropped when its renewal is due."""
    with Admin(agent.admin_socket) as admin:
        made = admin.register("/unwatched", f"unix:uid:{os.getuid()}", f"unix:gid:{os.getgid()}", x509_svid_ttl=10)
        with Wire(agent.socket) as wire:
            assert f"{ID}/unwatched" in wire.x509_ids()
        until(lambda: made.id not in [each.entry_id for each in admin.status().svids])
        admin.delete(made.id)


@pytest.mark.forked
@pytest.mark.root
@pytest.mark.go
async def test_our_server_and_a_go_client(agent: AgentProcess, client: Path) -> None:
    """A Python server on the SDK's context and a Go client that dials it over rotations at both ends get on."""
    echoed: list[str] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            line = await reader.readline()
            echoed.append(line.decode())
            writer.write(line)
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError, OSError):
            await writer.wait_closed()

    async with Client(agent.socket) as sojourn, X509Source(sojourn) as source:
        before = source.svid.serial
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=source.server_context(authorize_id(f"{ID}/go")))
        async with server:
            host, port = server.sockets[0].getsockname()[:2]
            arguments = ["-addr", f"{host}:{port}", "-peer", f"{ID}/python", "-times", "70", "-every", "100ms"]
            with Program([str(client), "dial", *arguments], agent.environment, uid=OTHER) as dialler:
                status, lines = await asyncio.to_thread(dialler.finish)
        after = source.svid.serial
    assert (0, list(range(1, 71))) == (status, [line["n"] for line in lines])
    assert (True, 70) == (before != after, len(echoed))
    assert len({line["peer_serial"] for line in lines}) >= 2


@pytest.mark.root
@pytest.mark.go
async def test_our_server_refuses_another_go_client(agent: AgentProcess, client: Path) -> None:
    """A Python server on the SDK's context admits only whom its authorizer names."""

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async with Client(agent.socket) as sojourn, X509Source(sojourn) as source:
        context = source.server_context(authorize_id(f"{ID}/other"))
        async with await asyncio.start_server(never, "127.0.0.1", 0, ssl=context) as server:
            host, port = server.sockets[0].getsockname()[:2]
            arguments = ["-addr", f"{host}:{port}", "-peer", f"{ID}/python"]
            with Program([str(client), "dial", *arguments], agent.environment, uid=OTHER) as dialler:
                status, lines = await asyncio.to_thread(dialler.finish)
    assert (1, ["error"]) == (status, [line["event"] for line in lines])


@pytest.mark.root
@pytest.mark.go
async def test_a_go_server_and_our_client(agent: AgentProcess, client: Path) -> None:
    """A Go server and a Python client on the SDK's context get on, and each refuses a stranger."""
    with Program([str(client), "server", "-peer", f"{ID}/python"], agent.environment, uid=OTHER) as server:
        host, _, port = (await asyncio.to_thread(server.hear))["addr"].rpartition(":")
        async with Client(agent.socket) as sojourn, X509Source(sojourn) as source:
            context = source.client_context(authorize_id(f"{ID}/go"))
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname="")
            writer.write(b"hello\n")
            assert b"hello\n" == await reader.readline()
            writer.close()
            await writer.wait_closed()
            peer = await asyncio.to_thread(server.hear)
            strict = source.client_context(authorize_id(f"{ID}/other"))
            with pytest.raises(OSError):
                await asyncio.open_connection(host, int(port), ssl=strict, server_hostname="")
    assert ("peer", f"{ID}/python") == (peer["event"], peer["spiffe_id"])


def test_an_agent_that_was_away(agent: AgentProcess, tmp_path: Path) -> None:
    """After a restart of the agent a client that comes back gets a new certificate of the same root."""
    del tmp_path
    with AgentProcess() as own:
        with Admin(own.admin_socket) as admin:
            admin.register("/a", f"unix:uid:{os.getuid()}")
        with Wire(own.socket) as wire:
            before = wire.x509().svids[0]
            own.stop()
            own.start()
            after = until(lambda: _tried(wire))
    assert (before.bundle, before.spiffe_id) == (after.bundle, after.spiffe_id)
    assert leaf(before).serial_number != leaf(after).serial_number


def _tried(wire: Wire) -> object:
    import grpc

    try:
        return wire.x509().svids[0]
    except grpc.RpcError:
        return None
