"""The node's side of SPIRE's node API, against a real spire-server: attest, renew, sync, sign, and what it refuses."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from harness.federating import SpireServer
from harness.spirecli import binary
from harness.spirenode import Machines, bundle_of, token
from sojourn.errors import InvalidInput, NodeRefused, NotFound, Refused, UpstreamUnavailable
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import X509Svid
from sojourn.upstream import authorized_entries, workload_svids
from sojourn.upstream.authorized_entries import Authorized
from sojourn.upstream.connection import ServerConnection
from sojourn.upstream.node_attestation import AttestedNode, JoinToken, X509Pop, attest, renew

pytestmark = pytest.mark.forked

DOMAIN = TrustDomain("spire.example")
P256 = ec.SECP256R1()


@pytest.fixture(scope="module")
def machines() -> Machines:
    return Machines()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, machines: Machines) -> Iterator[SpireServer]:
    folder = tmp_path_factory.mktemp("spire")
    pem = folder / "machines.pem"
    pem.write_bytes(machines.certificate.public_bytes(Encoding.PEM))
    with SpireServer(binary("spire-server"), folder / "server", DOMAIN.name, x509pop_ca=pem) as running:
        yield running


@pytest.fixture
def bundle(server: SpireServer) -> Bundle:
    return bundle_of(server)


def now() -> datetime:
    return datetime.now(UTC)


def connection(server: SpireServer, bundle: Bundle, svid: X509Svid | None = None) -> ServerConnection:
    return ServerConnection(f"127.0.0.1:{server.node_port}", bundle, svid)


@asynccontextmanager
async def node(server: SpireServer, bundle: Bundle) -> AsyncIterator[tuple[AttestedNode, ServerConnection]]:
    """A node that has joined by a token, and its connection."""
    async with connection(server, bundle) as shown_nothing:
        joined = await attest(shown_nothing, token(server), bundle, now())
    async with connection(server, bundle, joined.svid) as opened:
        yield joined, opened


def entry(server: SpireServer, parent: AttestedNode, path: str, *more: str) -> str:
    """An entry's ID."""
    made = server.run(
        *("entry", "create", "-parentID", str(parent.spiffe_id), "-spiffeID", f"spiffe://{DOMAIN.name}{path}"),
        *("-selector", "unix:uid:1000", *more),
    )
    return next(line.split()[-1] for line in made.stdout.splitlines() if line.startswith("Entry ID"))


def entries(server: SpireServer, parent: AttestedNode, count: int, folder: Path) -> None:
    """Many entries by one command."""
    file = folder / "entries.json"
    made = [
        {
            "spiffe_id": f"spiffe://{DOMAIN.name}/many/{number}",
            "parent_id": str(parent.spiffe_id),
            "selectors": [{"type": "unix", "value": f"uid:{number}"}],
        }
        for number in range(count)
    ]
    file.write_text(json.dumps({"entries": made}))
    server.run("entry", "create", "-data", str(file))


async def synced(
    opened: ServerConnection, joined: AttestedNode, count: int, known: Authorized | None = None
) -> Authorized:
    """What the server gives the node, once that is so many entries: its own cache is rebuilt every five seconds."""
    found = known or Authorized()
    for _ in range(120):
        found = await authorized_entries.sync(opened, found, joined.spiffe_id)
        if len(found.entries) == count:
            return found
        await asyncio.sleep(0.25)
    raise AssertionError(f"{len(found.entries)} entries, and not {count}")


class TestAttest:
    async def test_join_token(self, server: SpireServer, bundle: Bundle) -> None:
        """A token makes this a node, which the server lists; the same token a second time makes none."""
        once = token(server)
        async with connection(server, bundle) as opened:
            joined = await attest(opened, once, bundle, now())
            with pytest.raises(InvalidInput, match="does not exist or has already been used"):
                await attest(opened, once, bundle, now())
        assert f"spiffe://{DOMAIN.name}/spire/agent/join_token/{once.token}" == str(joined.spiffe_id)
        assert not joined.reattestable
        assert str(joined.spiffe_id) in server.run("agent", "list").stdout

    @pytest.mark.parametrize("kind", ["rsa", "ec"])
    async def test_x509pop(self, server: SpireServer, bundle: Bundle, machines: Machines, kind: str) -> None:
        """A certificate of an authority that the server trusts makes this a node, each time that it is shown."""
        key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(P256)
        shown = X509Pop((machines.machine(key),), key)
        async with connection(server, bundle) as opened:
            joined = await attest(opened, shown, bundle, now())
            again = await attest(opened, shown, bundle, now())
        assert joined.reattestable
        assert joined.spiffe_id == again.spiffe_id
        assert joined.svid.serial != again.svid.serial

    async def test_a_key_that_is_not_the_certificate_s(
        self, server: SpireServer, bundle: Bundle, machines: Machines
    ) -> None:
        """Who has the certificate and not its key is no node."""
        certificate = machines.machine(ec.generate_private_key(P256))
        async with connection(server, bundle) as opened:
            with pytest.raises(Refused, match="challenge response verification failed"):
                await attest(opened, X509Pop((certificate,), ec.generate_private_key(P256)), bundle, now())

    async def test_another_server(self, server: SpireServer, bundle: Bundle) -> None:
        """A server that the bundle does not vouch for is told nothing, whatever it says that it is."""
        other = Bundle(DOMAIN, (Machines().certificate,))
        once = token(server)
        async with connection(server, other) as opened:
            with pytest.raises(UpstreamUnavailable, match="no TLS connection"):
                await attest(opened, once, other, now())
        async with connection(server, bundle) as opened:
            await attest(opened, once, bundle, now())

    async def test_nobody_is_there(self, bundle: Bundle) -> None:
        """A server that is away is told as that."""
        async with ServerConnection("127.0.0.1:1", bundle) as opened:
            with pytest.raises(UpstreamUnavailable, match=r"127\.0\.0\.1:1 does not answer"):
                await attest(opened, JoinToken("x"), bundle, now())


class TestRenew:
    async def test_renewed(self, server: SpireServer, bundle: Bundle) -> None:
        """A node renews with a new key; once the new SVID has been used the old one is worth nothing."""
        async with node(server, bundle) as (joined, opened):
            renewed = await renew(opened, joined, bundle, now())
            await authorized_entries.sync(opened, Authorized(), joined.spiffe_id)  # the old one is good until then
            assert joined.spiffe_id == renewed.spiffe_id
            assert joined.svid.leaf.public_key() != renewed.svid.leaf.public_key()
            async with connection(server, bundle, renewed.svid) as newer:
                await authorized_entries.sync(newer, Authorized(), joined.spiffe_id)
            with pytest.raises(NodeRefused) as refused:
                await authorized_entries.sync(opened, Authorized(), joined.spiffe_id)
        assert "not_active" == refused.value.reason_code

    async def test_of_one_that_attests_anew(self, server: SpireServer, bundle: Bundle, machines: Machines) -> None:
        """A node that can attest anew is told to."""
        key = ec.generate_private_key(P256)
        async with connection(server, bundle) as opened:
            joined = await attest(opened, X509Pop((machines.machine(key),), key), bundle, now())
        async with connection(server, bundle, joined.svid) as opened:
            with pytest.raises(NodeRefused) as refused:
                await renew(opened, joined, bundle, now())
        assert "must_reattest" == refused.value.reason_code

    @pytest.mark.parametrize(("command", "reason"), [("ban", "banned"), ("evict", "not_attested")])
    async def test_thrown_out(self, server: SpireServer, bundle: Bundle, command: str, reason: str) -> None:
        """A node that the server's operator bans or evicts hears so at its next call."""
        async with node(server, bundle) as (joined, opened):
            await authorized_entries.sync(opened, Authorized(), joined.spiffe_id)
            server.run("agent", command, "-spiffeID", str(joined.spiffe_id))
            with pytest.raises(NodeRefused) as refused:
                await authorized_entries.sync(opened, Authorized(), joined.spiffe_id)
        assert reason == refused.value.reason_code


class TestEntries:
    @pytest.mark.parametrize("count", [0, 1, 500, 501, pytest.param(2_000, marks=pytest.mark.full)])
    async def test_how_many(self, server: SpireServer, bundle: Bundle, tmp_path: Path, count: int) -> None:
        """All entries of a node come, whether the server sends them at once or by their revisions."""
        async with node(server, bundle) as (joined, opened):
            if count:
                entries(server, joined, count, tmp_path)
            found = await synced(opened, joined, count)
            assert {f"/many/{number}" for number in range(count)} == {
                each.spiffe_id.path for each in found.entries.values()
            }
            assert {} == found.unread
            again = await authorized_entries.sync(opened, found, joined.spiffe_id)
            assert found.entries == again.entries
            if count > 500:  # those that are the same are not sent again
                assert all(again.entries[name] is each for name, each in found.entries.items())

    async def test_changes(self, server: SpireServer, bundle: Bundle, tmp_path: Path) -> None:
        """An entry that is changed, one that goes and one that comes: each is so at the next sync."""
        async with node(server, bundle) as (joined, opened):
            entries(server, joined, 501, tmp_path)
            found = await synced(opened, joined, 501)
            first, second, *_ = sorted(found.entries)
            server.run("entry", "delete", "-entryID", first)
            server.run(
                *("entry", "update", "-entryID", second, "-parentID", str(joined.spiffe_id)),
                *("-spiffeID", f"spiffe://{DOMAIN.name}/changed", "-selector", "unix:uid:7", "-hint", "internal"),
            )
            for number in range(2):
                entry(server, joined, f"/new/{number}")
            after = await synced(opened, joined, 502, found)
            assert first not in after.entries
            assert ("/changed", "internal") == (after.entries[second].spiffe_id.path, after.entries[second].hint)
            assert {"/new/0", "/new/1"} <= {each.spiffe_id.path for each in after.entries.values()}

    async def test_bundles(self, server: SpireServer, bundle: Bundle) -> None:
        """The server's bundle is what its command shows; of a foreign domain there is one once it was set."""
        async with node(server, bundle) as (_, opened):
            found = await authorized_entries.own_bundle(opened, DOMAIN)
            assert bundle.x509_der == found.x509_der
            assert bundle.jwt_authorities.keys() == found.jwt_authorities.keys()
            assert None is await authorized_entries.federated_bundle(opened, TrustDomain("partner.example"))


class TestSigning:
    async def test_x509(self, server: SpireServer, bundle: Bundle) -> None:
        """An SVID comes for each entry, for our key and by the server's authority, with the entry's DNS names."""
        async with node(server, bundle) as (joined, opened):
            entry(server, joined, "/web", "-dns", "web.example.org")
            entry(server, joined, "/db")
            found = await synced(opened, joined, 2)
            wanted = sorted(found.entries.values(), key=lambda each: each.spiffe_id.path)
            db, web = await workload_svids.sign_x509(opened, wanted, bundle, now(), P256)
            assert isinstance(db, X509Svid)
            assert isinstance(web, X509Svid)
            assert ["/db", "/web"] == [each.spiffe_id.path for each in (db, web)]
            names = web.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert ["web.example.org"] == names.get_values_for_type(x509.DNSName)
            assert web.leaf.public_key() == web.key.public_key()

    async def test_another_node_s(self, server: SpireServer, bundle: Bundle) -> None:
        """An entry of another node is signed for by the server for that one alone; what is ours is signed all the same."""
        async with node(server, bundle) as (theirs, their_opened), node(server, bundle) as (joined, opened):
            entry(server, theirs, "/theirs")
            entry(server, joined, "/ours")
            (their_entry,) = (await synced(their_opened, theirs, 1)).entries.values()
            (our_entry,) = (await synced(opened, joined, 1)).entries.values()
            refused, signed = await workload_svids.sign_x509(opened, [their_entry, our_entry], bundle, now(), P256)
            assert isinstance(refused, NotFound)
            assert isinstance(signed, X509Svid)
            with pytest.raises(NotFound, match="entry not found or not authorized"):
                await workload_svids.sign_jwt(opened, their_entry, ["a"], bundle.jwt_authorities, now())

    async def test_jwt(self, server: SpireServer, bundle: Bundle) -> None:
        """A JWT-SVID comes for an entry and its audiences, verified by the server's keys."""
        async with node(server, bundle) as (joined, opened):
            entry(server, joined, "/web")
            (web,) = (await synced(opened, joined, 1)).entries.values()
            svid = await workload_svids.sign_jwt(opened, web, ["one", "two"], bundle.jwt_authorities, now())
            assert ("/web", {"one", "two"}) == (svid.spiffe_id.path, set(svid.audience))

    async def test_a_batch_that_is_full(self, server: SpireServer, bundle: Bundle, tmp_path: Path) -> None:
        """500 SVIDs come by one call; more are not asked for."""
        async with node(server, bundle) as (joined, opened):
            entries(server, joined, 500, tmp_path)
            found = list((await synced(opened, joined, 500)).entries.values())
            signed = await workload_svids.sign_x509(opened, found, bundle, now(), P256)
            assert 500 == sum(isinstance(each, X509Svid) for each in signed)
            with pytest.raises(InvalidInput):
                await workload_svids.sign_x509(opened, [*found, found[0]], bundle, now(), P256)
