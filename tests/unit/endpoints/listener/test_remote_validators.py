"""remote_validators.py: who may connect over TCP, and how many. A real listener, TLS and certificates; the clock is fake."""

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
from sojourn.endpoints.listener import tls
from sojourn.endpoints.listener.own_svid import ENTRY_ID, OwnSvid
from sojourn.endpoints.listener.remote_validators import RemoteDoor
from sojourn.endpoints.listener.tls import TlsPeer, address_of, bind_tcp
from sojourn.errors import CannotStart, Refused, SvidExpired, Unavailable
from sojourn.identity.svid_issuer import Signers, SvidIssuer
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import X509Svid
from sojourn.spiffetls.context import load_svid

NODE = SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/n")
WEB, DB = SpiffeId.parse("spiffe://example.org/web"), SpiffeId.parse("spiffe://example.org/db")
HOUR = timedelta(hours=1)
DEADLINE_SECONDS = 20  # so that a hung test says where


class Site:
    """A door that serves nothing: what comes in waits."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.clock.step_wall((datetime.now(UTC) - self.clock.now()).total_seconds())  # TLS reads the real clock
        self.alarms = Alarms(self.clock)
        ttls = {"root_ttl": timedelta(days=9), "issuer_ttl": timedelta(days=1), "jwt_key_ttl": timedelta(days=1)}
        self.authority = EmbeddedAuthority(
            TrustDomain("example.org"), folder / "keys", self.clock, curve=ec.SECP256R1(), **ttls
        )
        audit = Audit(FakeAuditStore(), self.clock)
        signers = Signers.at_once(self.authority, HOUR, HOUR)
        self.issuing = SvidIssuer(self.authority, signers, self.clock, self.alarms, audit)
        self.revoked = FakeDenyList()
        self.own = OwnSvid(NODE, self.authority, self.issuing)
        self.door = RemoteDoor(
            self.authority,
            self.revoked,  # type: ignore[arg-type]  # what it needs of it
            self.clock,
            self.alarms,
        )
        self.listener = bind_tcp("127.0.0.1:0")
        self._left: list[asyncio.StreamWriter] = []

    def open(self, **options: Any) -> None:
        self.door.listen(self.listener, self.own, **{"allowed": None, "connections": 10, **options})

    async def connect(self, spiffe_id: SpiffeId | None = WEB, *, tls: bool = True) -> asyncio.StreamReader:
        host, _, port = address_of(self.listener).rpartition(":")
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if spiffe_id is not None:
                load_svid(context, self.svid(spiffe_id))
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        self._left.append(writer)
        return reader

    def svid(self, spiffe_id: SpiffeId) -> X509Svid:
        return self.authority.issue_x509(spiffe_id, HOUR)

    async def until(self, connections: int) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.door.connections != connections:
                await asyncio.sleep(0.01)

    @property
    def peers(self) -> list[TlsPeer]:
        return list(self.door._peers_of.values())

    async def close(self) -> None:
        self.door.stop_accepting()
        self.door.close()
        for writer in self._left:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self.listener.close()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other end has closed the connection, which it must soon."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        try:
            return await reader.read(1) == b""
        except OSError:
            return True


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.close()


async def test_all_places(site: Site) -> None:
    """When all places are taken nobody else comes in, and a place that is left can be taken."""
    site.open(connections=4)
    readers = [await site.connect(each) for each in (WEB, WEB, DB, DB)]
    await site.until(4)
    assert await ended(await site.connect(tls=False))
    site._left[0].close()
    await site.until(3)
    await site.connect(SpiffeId.parse("spiffe://example.org/third"))
    await site.until(4)
    assert not any(reader.at_eof() for reader in readers[1:])


async def test_places_of_one_workload(site: Site) -> None:
    """One SPIFFE ID takes half of all places at most: others come in still."""
    site.open(connections=6)
    for _ in range(3):
        await site.connect(WEB)
    await site.until(3)
    assert await ended(await site.connect(WEB))
    await site.connect(DB)
    await site.until(4)


async def test_handshakes_of_one_address(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address has so many handshakes under way, which end after a while; then others may begin."""
    monkeypatch.setattr(tls, "REMOTE_HANDSHAKES_PER_ADDRESS", 2)
    monkeypatch.setattr(tls, "REMOTE_HANDSHAKE_SECONDS", 1.0)
    site.open()
    silent = [await site.connect(tls=False) for _ in range(2)]
    assert await ended(await site.connect(tls=False))
    assert [True, True] == [await ended(each) for each in silent]
    await site.connect()
    await site.until(1)


async def test_all_handshakes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many handshakes are under way at most, whoever makes them; those who are in stay in."""
    monkeypatch.setattr(tls, "REMOTE_HANDSHAKES", 1)
    site.open()
    known = await site.connect()
    await site.until(1)
    await site.connect(tls=False)
    assert await ended(await site.connect(tls=False))
    assert (1, False) == (site.door.connections, known.at_eof())


async def test_who_it_is(site: Site) -> None:
    """A caller is known by the SPIFFE ID and the serial number of its certificate."""
    site.open()
    await site.connect(WEB)
    await site.until(1)
    [peer] = site.peers
    assert (str(WEB), "127.0.0.1") == (peer.who, peer.details["address"])
    assert f"{peer.chain[0].serial_number:x}" == peer.details["serial"]
    site.door.check(peer)


@pytest.mark.full
async def test_not_allowed(site: Site) -> None:
    """One that is not allowed is refused each call, and its connection ends."""
    site.open(allowed=[DB])
    await site.connect(DB)
    await site.until(1)
    site.door.check(site.peers[0])
    reader = await site.connect(WEB)
    await site.until(2)
    with pytest.raises(Refused, match=r"'spiffe://example\.org/web' is not allowed here"):
        site.door.check(site.peers[1])
    assert await ended(reader)
    await site.until(1)


async def test_nobody_is_allowed(site: Site) -> None:
    """An empty list of those who are allowed lets nobody in."""
    site.open(allowed=[])
    await site.connect(WEB)
    await site.until(1)
    with pytest.raises(Refused):
        site.door.check(site.peers[0])


async def test_the_wall_clock_ends_an_svid(site: Site) -> None:
    """A caller's SVID has ended when the wall clock says so, though it was set, and when its time has gone by."""
    site.open()
    await site.connect()
    await site.until(1)
    site.clock.step_wall(3_601)
    with pytest.raises(SvidExpired):
        site.door.check(site.peers[0])
    site.clock.step_wall(-7_200)
    with pytest.raises(SvidExpired):
        site.door.check(site.peers[0])


@pytest.mark.full
async def test_the_boot_clock_ends_an_svid(site: Site) -> None:
    """A wall clock that is set back prolongs no connection: it ends when the SVID's time has gone by."""
    site.open()
    reader = await site.connect()
    await site.until(1)
    site.clock.step_wall(-86_400)
    site.clock.advance(3_700)
    site.alarms.ring_due()
    with pytest.raises(SvidExpired):
        site.door.check(site.peers[0])
    assert await ended(reader)


@pytest.mark.full
async def test_revoked(site: Site) -> None:
    """When its serial number is on the deny list a caller is refused, others are not, and its connection ends."""
    site.open()
    first = await site.connect(WEB)
    await site.connect(DB)
    await site.until(2)
    one, other = site.peers
    site.revoked.serials.add(one.serial)
    site.revoked.hook()
    with pytest.raises(Refused, match="revoked"):
        site.door.check(one)
    site.door.check(other)
    assert await ended(first)


@pytest.mark.full
async def test_an_authority_that_is_revoked_meanwhile(site: Site) -> None:
    """One whose authority is revoked while its handshake is under way is refused."""
    site.open()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    load_svid(tls, site.svid(WEB))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls.wrap_bio(incoming, outgoing)
    host, _, port = address_of(site.listener).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    site._left.append(writer)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    writer.write(outgoing.read())
    root = site.authority.slots("x509").active.id
    answered = False
    while True:
        async with asyncio.timeout(DEADLINE_SECONDS):
            incoming.write(await reader.read(65_536))
        if not answered:
            answered = True
            await site.authority.activate("x509", site.authority.prepare("x509").id)
            site.authority.taint("x509", root)
            site.authority.revoke("x509", root)
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            continue
    writer.write(outgoing.read())
    await site.until(1)
    with pytest.raises(Refused, match=r"the authority that signed the X\.509-SVID is revoked"):
        site.door.check(site.peers[0])
    assert await ended(reader)


@pytest.mark.full
async def test_ending(site: Site) -> None:
    """When the agent ends, each caller is told so."""
    site.open()
    reader = await site.connect()
    await site.until(1)
    site.door.end_all(Unavailable("the agent is shutting down"))
    with pytest.raises(Unavailable, match="shutting down"):
        site.door.check(site.peers[0])
    assert await ended(reader)


class TestOwnSvid:
    async def test_the_same_until_it_changes(self, site: Site) -> None:
        """What is shown stays the same until the SVID or the bundle is another one."""
        first = site.own.present
        assert first is site.own.present
        assert (NODE, [site.authority.trust_domain]) == (
            first.context.default.spiffe_id,
            list(first.context.bundles),
        )
        site.issuing.forget_entry(ENTRY_ID)
        second = site.own.present
        assert (first.version + 1, True) == (
            second.version,
            second.context.default.serial != first.context.default.serial,
        )
        made = site.authority.prepare("x509")
        third = site.own.present
        assert (second.version + 1, second.context.default.serial) == (third.version, third.context.default.serial)
        assert made.key.certificate in third.context.bundles[site.authority.trust_domain]

    async def test_it_is_renewed(self, site: Site) -> None:
        """While the listener is open the SVID is renewed at about half of its life, whether anybody comes or not."""
        site.open()
        first = site.own.present
        site.clock.advance(HOUR.total_seconds() * 0.6)
        site.alarms.ring_due()
        [kept] = site.issuing.x509.kept()
        assert first.context.default.serial != kept.svid.serial

    async def test_a_taint(self, site: Site) -> None:
        """After a taint of its authority another one is shown."""
        site.open()
        first, root = site.own.present, site.authority.slots("x509").active.id
        await site.authority.activate("x509", site.authority.prepare("x509").id)
        site.authority.taint("x509", root)
        await site.issuing.replace_signed_by("x509", root)
        second = site.own.present.context.default
        assert (root, False) == (
            site.authority.root_of(first.context.default),
            site.authority.root_of(second) == root,
        )


@pytest.mark.parametrize("address", ["256.0.0.1:80", "203.0.113.1:8443"])
def test_addresses_that_are_not_ours(address: str) -> None:
    """An address that cannot be listened on is said, with the key that sets it."""
    with pytest.raises(CannotStart, match=r"cannot listen on .*: set listen.tcp"):
        bind_tcp(address)


def test_ipv6() -> None:
    """An IPv6 address is written in brackets, and shown so."""
    listener = bind_tcp("[::1]:0")
    shown = address_of(listener)
    listener.close()
    assert shown.startswith("[::1]:")
