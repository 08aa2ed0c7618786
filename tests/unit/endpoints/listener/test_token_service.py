"""token_service.py: how many may connect, and what is answered. A real listener, TLS and certificates; the clock is fake."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.clock import FakeClock
from fakes.denylist import FakeDenyList
from fakes.journals import FakeAuditStore
from sojourn.audit.journal import Audit
from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.endpoints.http1.protocol import HttpProtocols
from sojourn.endpoints.http1.scope import SENDER
from sojourn.endpoints.listener import tls, token_service
from sojourn.endpoints.listener.https import ShownSource, WebContext
from sojourn.endpoints.listener.own_svid import OwnSvid
from sojourn.endpoints.listener.tls import address_of, bind_tcp
from sojourn.endpoints.listener.token_service import ClientCheck, HttpsDoor
from sojourn.identity.svid_issuer import Signers, SvidIssuer
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffetls.authorize import authorize_member_of
from sojourn.spiffetls.context import load_svid
from sojourn.spiffetls.peer import PeerCheck
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

NODE = SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/n")
WEB, DB = SpiffeId.parse("spiffe://example.org/web"), SpiffeId.parse("spiffe://example.org/db")
HOUR = timedelta(hours=1)
DEADLINE_SECONDS = 20  # so that a hung test says where


async def who(request: Request) -> Response:
    """Say who asks."""
    sender = request.scope[SENDER]
    return PlainTextResponse(str(sender.certificate.spiffe_id) if sender.certificate else f"nobody at {sender.address}")


class Site:
    """A door, and clients of it."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.clock.step_wall((datetime.now(UTC) - self.clock.now()).total_seconds())  # TLS reads the real clock
        alarms = Alarms(self.clock)
        ttls = {"root_ttl": timedelta(days=9), "issuer_ttl": timedelta(days=1), "jwt_key_ttl": timedelta(days=1)}
        domain = TrustDomain("example.org")
        self.authority = EmbeddedAuthority(domain, folder / "keys", self.clock, curve=ec.SECP256R1(), **ttls)
        audit = Audit(FakeAuditStore(), self.clock)
        signers = Signers.at_once(self.authority, HOUR, HOUR)
        issuing = SvidIssuer(self.authority, signers, self.clock, alarms, audit)
        self.denied: Any = FakeDenyList()
        protocols = HttpProtocols(Starlette(routes=[Route("/who", who), Route("/later", self._later)]))
        self.asked, self.answers = 0, asyncio.Event()
        self.door = HttpsDoor(protocols, self.authority, self.denied, self.clock, alarms)
        self.listener = bind_tcp("127.0.0.1:0")
        source = ShownSource(OwnSvid(NODE, self.authority, issuing), None)
        members = authorize_member_of(domain)
        self._context = WebContext.of(source, lambda context: ClientCheck(PeerCheck(context, members), self.denied))
        self._left: list[asyncio.StreamWriter] = []

    def open(self, connections: int) -> None:
        self.door.open(self.listener, self._context, connections=connections)

    async def _later(self, _request: Request) -> Response:
        self.asked += 1
        await self.answers.wait()
        return PlainTextResponse("later")

    def unknown(self) -> set[str]:
        """The addresses of who shows no certificate."""
        return {peer.address for peer in self.door._peers_of.values() if peer.spiffe_id is None}

    async def connect(
        self, spiffe_id: SpiffeId | None = None, source: str = ""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = address_of(self.listener).rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if spiffe_id is not None:
            load_svid(context, self.authority.issue_x509(spiffe_id, HOUR))
        local = (source, 0) if source else None
        opened = await asyncio.open_connection(host, int(port), ssl=context, local_addr=local)
        self._left.append(opened[1])
        return opened

    async def ask(self, spiffe_id: SpiffeId | None = None, source: str = "") -> str:
        """Who the door thinks one is; '' if it says nothing."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            try:
                reader, writer = await self.connect(spiffe_id, source)
                writer.write(
                    b"GET /who HTTP/1.1\r\nhost: x\r\nx-forwarded-client-cert: URI=spiffe://example.org/db\r\n\r\n"
                )
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                (length,) = (line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
                return (await reader.readexactly(int(length.partition(b":")[2]))).decode()
            except (OSError, asyncio.IncompleteReadError):
                return ""

    async def until(self, connections: int) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.door.connections != connections:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.door.stop_accepting()
        self.door.close()
        for writer in self._left:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self.listener.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.close()


async def test_who_asks(site: Site) -> None:
    """The sender is whom the certificate names, or nobody, whatever a header says."""
    site.open(10)
    assert ["spiffe://example.org/web", "nobody at 127.0.0.1"] == [await site.ask(WEB), await site.ask()]


async def test_places_of_an_address(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of one address that show no certificate have so many places; those who show one are not among them."""
    monkeypatch.setattr(token_service, "HTTPS_CONNECTIONS_PER_ADDRESS", 2)
    site.open(10)
    for _ in range(2):
        assert await site.ask()
    await site.until(2)
    assert "" == await site.ask()
    assert await site.ask(WEB)
    site._left[0].close()
    await site.until(2)
    assert await site.ask()


async def test_places_of_a_workload(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One SPIFFE ID has so many places, and half of all at most."""
    site.open(4)
    assert await site.ask(WEB)
    assert await site.ask(WEB)
    await site.until(2)
    assert "" == await site.ask(WEB)
    assert await site.ask(DB)


async def test_revoked(site: Site) -> None:
    """With the revocation of a certificate its connections end, and none begins; others stay."""
    site.open(10)
    reader, _ = await site.connect(WEB)
    other, _ = await site.connect(DB)
    await site.until(2)
    (serial,) = [peer.serial for peer in site.door._peers_of.values() if peer.spiffe_id == WEB]
    site.denied.serials.add(serial)
    site.denied.hook()
    async with asyncio.timeout(DEADLINE_SECONDS):
        with contextlib.suppress(OSError):
            assert b"" == await reader.read(1)
    await site.until(1)
    assert not other.at_eof()


async def test_nobody_unknown_takes_the_last_place(site: Site) -> None:
    """Clients that show no certificate have a share of the places, from however many addresses they come: the oldest
    that asks nothing makes room for the next one. Who shows one finds room beside them.
    """
    site.open(8)
    for number in range(1, 5):
        assert await site.ask(source=f"127.0.0.{number}")
    await site.until(4)
    assert "nobody at 127.0.0.9" == await site.ask(source="127.0.0.9")
    await site.until(4)
    assert await site.ask(WEB)
    assert {"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.9"} == site.unknown()


@pytest.mark.parametrize(
    "slow",
    [b"GET /who HTTP/1.1\r\nhost: x\r\nx: ", b"POST /who HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx", b""],
)
async def test_few_addresses_shut_nobody_out(site: Site, slow: bytes) -> None:
    """Whoever holds all places with requests that never come whole makes room for others, and not for more of itself."""
    site.open(8)
    for number in range(1, 5):
        _, writer = await site.connect(source=f"127.0.3.{number}")
        writer.write(slow)
        await writer.drain()
    await site.until(4)
    assert "nobody at 127.0.9.9" == await site.ask(source="127.0.9.9")
    await site.until(4)
    assert {"127.0.3.2", "127.0.3.3", "127.0.3.4", "127.0.9.9"} == site.unknown()
    assert "" == await site.ask(source="127.0.3.2")
    assert "nobody at 127.0.3.1" == await site.ask(source="127.0.3.1")
    await site.until(4)
    assert {"127.0.3.3", "127.0.3.4", "127.0.9.9", "127.0.3.1"} == site.unknown()


async def test_what_is_being_answered_goes_on(site: Site) -> None:
    """A connection whose request has come whole makes no room until it is answered; one that is answered does."""
    site.open(4)
    site.answers = asyncio.Event()
    readers = []
    for number in (1, 2):
        reader, writer = await site.connect(source=f"127.0.3.{number}")
        writer.write(b"GET /later HTTP/1.1\r\nhost: x\r\n\r\n")
        await writer.drain()
        readers.append(reader)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while site.asked < 2:
            await asyncio.sleep(0.01)
    assert "" == await site.ask(source="127.0.9.9")
    site.answers.set()
    for reader in readers:
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert (await reader.readuntil(b"later")).startswith(b"HTTP/1.1 200")
    assert "nobody at 127.0.9.9" == await site.ask(source="127.0.9.9")


async def test_handshakes_of_one_network(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a whole IPv6 network to come from has the places of one for its handshakes."""
    monkeypatch.setattr(tls, "REMOTE_HANDSHAKES_PER_ADDRESS", 2)
    site.open(100)
    never = [asyncio.ensure_future(asyncio.Event().wait()) for _ in range(3)]
    for number, task in enumerate(never[:2]):
        site.door._handshakes[task] = f"2001:db8::{number + 1}"  # type: ignore[index]
    assert "this address" in site.door.no_room("2001:db8::77")
    assert "" == site.door.no_room("2001:db8:0:1::77")
    assert "" == site.door.no_room("::ffff:192.0.2.1")
    site.door._handshakes.clear()
    for task in never:
        task.cancel()
