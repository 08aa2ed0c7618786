"""A node of a real spire-server, and of a server of ours, which it cannot tell apart: joins, renews, is banned and
evicted, and serves on while the server is away.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from harness.spirenode import Machines, NodeServer, RunningNode, command, register, server_of, token, until
from sojourn.errors import NodeRefused, SojournError, Unavailable
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain
from sojourn.upstream.node_keep import ENTRIES

pytestmark = pytest.mark.forked

P256 = ec.SECP256R1()


@pytest.fixture(scope="module")
def machines() -> Machines:
    return Machines()


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory, machines: Machines) -> Path:
    pem = tmp_path_factory.mktemp("machines") / "machines.pem"
    pem.write_bytes(machines.certificate.public_bytes(Encoding.PEM))
    return pem


@pytest.fixture(scope="module", params=["spire", "sojourn"])
def whose(request: pytest.FixtureRequest) -> str:
    """Whose the server is."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ca_file: Path, whose: str) -> Iterator[NodeServer]:
    with server_of(whose, tmp_path_factory.mktemp("spire"), ca_file) as running:
        yield running


class TestJoining:
    async def test_by_a_token(self, server: NodeServer, tmp_path: Path) -> None:
        """A node that joins by a token is one that the server lists, with the entries that it has for it."""
        async with RunningNode(server, tmp_path) as running:
            state = running.node.state
            assert state.spiffe_id is not None
            assert str(state.spiffe_id) in await command(server, "agent", "list")
            assert ("", "", False) == (state.fault, state.refused, state.reattestable)
            await running.register("/web", "/db")
            web = running.entry("/web")
            svid, token_of = await asyncio.gather(
                running.node.x509.sign(web), running.node.jwt.sign(web, ["https://a.example"])
            )
            assert ("/web", "/web") == (svid.spiffe_id.path, token_of.spiffe_id.path)
            assert running.node.x509.vouches(svid)
            assert running.node.jwt.vouches(token_of)
            assert 2 == running.node.state.entries

    @pytest.mark.parametrize("kind", ["rsa", "ec"])
    async def test_by_a_certificate(self, server: NodeServer, machines: Machines, tmp_path: Path, kind: str) -> None:
        """A node that joins by a certificate is the same node each time."""
        key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(P256)
        files = machines.files(tmp_path, key, f"machine-{kind}")
        async with RunningNode(server, tmp_path / "one", files) as one:
            assert one.node.state.reattestable
            first = one.node.spiffe_id
        async with RunningNode(server, tmp_path / "two", files) as two:
            assert first is not None
            assert first == two.node.spiffe_id

    async def test_by_a_token_that_was_used(self, server: NodeServer, tmp_path: Path) -> None:
        """A token that is used up makes no node: the state says so and what helps, and the node goes on trying."""
        used = token(server)
        async with (
            RunningNode(server, tmp_path / "one", lambda: used),
            RunningNode(server, tmp_path / "two", lambda: used) as running,
        ):
            state = running.node.state
            assert "already been used" in state.fault
            assert "spire-server token generate" in state.remedy
            assert running.node.spiffe_id is None
            with pytest.raises(Unavailable, match=r"has not joined.*already been used"):
                _ = running.node.own_svid

    async def test_with_another_bundle(self, server: NodeServer, machines: Machines, tmp_path: Path) -> None:
        """A server that the operator's bundle does not vouch for is told nothing, and the token stays good."""
        once = token(server)
        domain = TrustDomain.parse(server.trust_domain)
        async with RunningNode(
            server, tmp_path / "one", lambda: once, bootstrap=Bundle(domain, (machines.certificate,))
        ) as running:
            assert "no TLS connection" in running.node.state.fault
        async with RunningNode(server, tmp_path / "two", lambda: once) as running:
            assert "" == running.node.state.fault

    async def test_in_another_trust_domain(self, server: NodeServer, tmp_path: Path) -> None:
        """A server of another trust domain is none of ours, whichever authority has signed for it."""
        async with RunningNode(server, tmp_path) as first:
            authorities = first.node.bundle.x509_authorities
        other = Bundle(TrustDomain("other.example"), authorities)
        async with RunningNode(server, tmp_path / "other", bootstrap=other) as running:
            assert "no TLS connection" in running.node.state.fault
            assert running.node.spiffe_id is None

    async def test_at_whichever_address_answers(self, server: NodeServer, tmp_path: Path) -> None:
        """Of several servers one that answers is found."""
        addresses = ["127.0.0.1:1", "localhost:2", f"127.0.0.1:{server.node_port}"]
        async with RunningNode(server, tmp_path, servers=addresses) as running:
            await until(lambda: running.node.state.synced_at, "the one that answers is found")
            assert f"127.0.0.1:{server.node_port}" == running.node.state.server


class TestRefused:
    async def test_banned(self, server: NodeServer, machines: Machines, tmp_path: Path) -> None:
        """A banned node gives out nothing and keeps nothing; evicted after that it joins anew by its certificate."""
        files = machines.files(tmp_path, ec.generate_private_key(P256), "banned")
        async with RunningNode(server, tmp_path, files) as running:
            await running.register("/of-banned")
            entry = running.entry("/of-banned")
            await running.node.x509.sign(entry)
            await command(server, "agent", "ban", "-spiffeID", str(running.node.spiffe_id))
            await until(lambda: running.node.state.banned, "it hears of it")
            assert ["banned"] == running.refused
            assert {} == running.node.entries
            assert "agent evict" in running.node.state.remedy
            await until(lambda: not list((tmp_path / "node").iterdir()), "what was kept is gone")
            with pytest.raises(NodeRefused):
                await running.node.x509.sign(entry)
            with pytest.raises(NodeRefused):
                await running.node.jwt.sign(entry, ["a"])

            await command(server, "agent", "evict", "-spiffeID", str(running.node.spiffe_id))
            await running.stop()
            await running.begin()  # in the place of the pause until it is asked again
            assert "" == running.node.state.refused
            await until(lambda: running.node.entries, "it is given its entry")
            await running.node.x509.sign(running.entry("/of-banned"))

    async def test_banned_at_the_start(self, server: NodeServer, machines: Machines, tmp_path: Path) -> None:
        """A node that is banned when it attests hears that this is why."""
        files = machines.files(tmp_path, ec.generate_private_key(P256), "banned-before")
        async with RunningNode(server, tmp_path / "one", files) as running:
            await command(server, "agent", "ban", "-spiffeID", str(running.node.spiffe_id))
        async with RunningNode(server, tmp_path / "two", files) as running:
            assert running.node.state.banned

    async def test_evicted_with_a_certificate(self, server: NodeServer, machines: Machines, tmp_path: Path) -> None:
        """A node that was evicted attests anew by itself, and goes on with its entries."""
        files = machines.files(tmp_path, ec.generate_private_key(P256), "evicted")
        async with RunningNode(server, tmp_path, files) as running:
            await running.register("/of-evicted")
            before = running.node.svid
            await command(server, "agent", "evict", "-spiffeID", str(running.node.spiffe_id))
            await until(lambda: running.node.svid is not before, "it attests anew")
            await until(lambda: running.node.state.refused == "" and running.node.entries, "it is taken for a node")
            assert ["not_attested"] == running.refused
            await running.node.x509.sign(running.entry("/of-evicted"))

    async def test_evicted_with_a_token(self, server: NodeServer, tmp_path: Path) -> None:
        """A node that was evicted and cannot attest anew keeps its entries, and says what has to be done."""
        async with RunningNode(server, tmp_path) as running:
            await running.register("/of-token")
            await command(server, "agent", "evict", "-spiffeID", str(running.node.spiffe_id))
            await until(lambda: running.node.state.refused, "it hears of it")
            assert "not_attested" == running.node.state.refused
            assert "spire-server token generate" in running.node.state.remedy
            assert 1 == running.node.state.entries


class TestEntries:
    @pytest.mark.parametrize("count", [1, 501, pytest.param(2_000, marks=pytest.mark.full)])
    async def test_how_many(self, server: NodeServer, tmp_path: Path, count: int) -> None:
        """All entries come, each has an SVID when it is asked for, and one that is deleted is gone."""
        async with RunningNode(server, tmp_path) as running:
            paths = [f"/n{count}/{number}" for number in range(count)]
            await register(server, str(running.node.spiffe_id), paths)
            await until(lambda: len(running.node.entries) == count, "all have come")
            entries = list(running.node.entries.values())
            svids = await asyncio.gather(*(running.node.x509.sign(each) for each in entries))
            assert [each.spiffe_id for each in entries] == [each.spiffe_id for each in svids]
            assert count == running.node.state.svids
            await command(server, "entry", "delete", "-entryID", entries[0].id)
            await until(lambda: entries[0].id not in running.node.entries, "it goes")
            assert count - 1 == running.node.state.svids

    async def test_one_that_is_gone_is_asked_for(self, server: NodeServer, tmp_path: Path) -> None:
        """What the server has no entry for any more is not signed, and the node looks again at once."""
        async with RunningNode(server, tmp_path) as running:
            await running.register("/gone")
            gone = running.entry("/gone")
            await command(server, "entry", "delete", "-entryID", gone.id)

            async def refused() -> bool:
                try:
                    await running.node.x509.sign(gone)
                except SojournError as error:
                    return error.code == "not_found"
                return False

            while not await refused():
                await asyncio.sleep(0.2)
            await until(lambda: gone.id not in running.node.entries, "the entry goes")


class TestAuthorities:
    @pytest.fixture
    def own_server(self, tmp_path: Path, whose: str) -> Iterator[NodeServer]:
        with server_of(whose, tmp_path / "spire") as running:
            yield running

    async def test_x509_authority_is_tainted(self, own_server: NodeServer, tmp_path: Path) -> None:
        """What a tainted authority has signed is not vouched for, and the node's own SVID is replaced at once."""
        async with RunningNode(own_server, tmp_path) as running:
            await running.register("/web")
            before, own = await running.node.x509.sign(running.entry("/web")), running.node.svid
            await command(own_server, "localauthority", "x509", "prepare")
            shown = await command(own_server, "localauthority", "x509", "show")
            old, new = _authorities(shown)
            await command(own_server, "localauthority", "x509", "activate", "-authorityID", new)
            await command(own_server, "localauthority", "x509", "taint", "-authorityID", old)
            await until(lambda: old in running.lost, "the node hears of it")
            assert not running.node.x509.vouches(before)
            await until(lambda: running.node.svid is not own, "its own SVID is renewed")
            assert running.node.x509.vouches(await running.node.x509.sign(running.entry("/web")))

    async def test_jwt_key_is_tainted(self, own_server: NodeServer, tmp_path: Path) -> None:
        """What a tainted key has signed is not vouched for; what the next one signs is, before the node has polled."""
        async with RunningNode(own_server, tmp_path) as running:
            await running.register("/web")
            before = await running.node.jwt.sign(running.entry("/web"), ["a"])
            await command(own_server, "localauthority", "jwt", "prepare")
            old, new = _authorities(await command(own_server, "localauthority", "jwt", "show"))
            await command(own_server, "localauthority", "jwt", "activate", "-authorityID", new)
            await command(own_server, "localauthority", "jwt", "taint", "-authorityID", old)
            await until(lambda: old in running.lost, "the node hears of it")
            assert not running.node.jwt.vouches(before)
            assert running.node.jwt.vouches(await running.node.jwt.sign(running.entry("/web"), ["a"]))


def _authorities(shown: str) -> tuple[str, str]:
    """The active authority, and the one that is prepared."""
    found = [line.split()[-1] for line in shown.splitlines() if "Authority ID" in line]
    return found[0], found[1]


@pytest.mark.full
class TestRenewal:
    async def test_no_call_is_lost(self, tmp_path: Path, machines: Machines, ca_file: Path, whose: str) -> None:
        """Nodes whose own SVIDs live for seconds renew them, by either way, and no call fails over it."""
        server = server_of(whose, tmp_path / "spire", ca_file, node_ttl="20s")
        files = machines.files(tmp_path, ec.generate_private_key(P256), "renewing")
        with server:
            async with (
                RunningNode(server, tmp_path / "one") as by_token,
                RunningNode(server, tmp_path / "two", files) as by_certificate,
            ):
                for number, running in enumerate((by_token, by_certificate)):
                    await running.register(f"/renewing/{number}")
                    serials = set()
                    while len(serials) < 3:
                        await running.node.x509.sign(running.entry(f"/renewing/{number}"))
                        await running.node.jwt.sign(running.entry(f"/renewing/{number}"), ["a"])
                        assert running.node.svid is not None
                        serials.add(running.node.svid.serial)
                        await asyncio.sleep(0.02)
                    assert [] == running.refused


class TestServerAway:
    @pytest.fixture
    def own_server(self, tmp_path: Path, whose: str) -> Iterator[NodeServer]:
        server = server_of(whose, tmp_path / "spire")
        with server:
            yield server
            if server.process.poll() is not None:  # a test has stopped it
                server.__enter__()

    async def test_restarted(self, own_server: NodeServer, tmp_path: Path) -> None:
        """A server that is started again is found again, and nothing is withdrawn meanwhile."""
        async with RunningNode(own_server, tmp_path) as running:
            await running.register("/web")
            await asyncio.to_thread(own_server.__exit__)
            await until(lambda: running.node.state.away_seconds is not None, "it is away")
            assert 1 == running.node.state.entries
            with pytest.raises(Unavailable, match="does not answer"):
                await running.node.x509.sign(running.entry("/web"))
            await asyncio.to_thread(own_server.__enter__)
            await until(lambda: running.node.state.away_seconds is None, "it is back")
            await running.node.x509.sign(running.entry("/web"))

    async def test_node_restarted_meanwhile(self, own_server: NodeServer, tmp_path: Path) -> None:
        """A node that is started while its server is away has its entries and SVIDs, and goes on when it is back."""
        async with RunningNode(own_server, tmp_path) as running:
            await running.register("/web", "/never-asked-for")
            svid, own = await running.node.x509.sign(running.entry("/web")), running.node.svid
            assert own is not None
            await asyncio.to_thread(own_server.__exit__)
            await running.stop()
            await running.begin()
            assert own.chain == running.node.own_svid.chain
            assert 2 == running.node.state.entries
            assert svid.chain == (await running.node.x509.sign(running.entry("/web"))).chain
            with pytest.raises(Unavailable, match="does not answer"):
                await running.node.x509.sign(running.entry("/never-asked-for"))
            await asyncio.to_thread(own_server.__enter__)
            await until(lambda: running.node.state.synced_at, "it is back")
            await running.node.x509.sign(running.entry("/never-asked-for"))

    async def test_entries_alone_are_kept(self, own_server: NodeServer, tmp_path: Path) -> None:
        """With `keep = "entries"` no key of a workload is on disk."""
        async with RunningNode(own_server, tmp_path, keep="entries") as running:
            await running.register("/web")
            await running.node.x509.sign(running.entry("/web"))
            await running.stop()
            names = {each.name for each in (tmp_path / "node").iterdir()}
            assert {"bundles.sealed", f"{ENTRIES}.sealed", "node.sealed", "seal.key"} == names
            await running.begin()

    async def test_nobody_is_there_at_first(self, own_server: NodeServer, tmp_path: Path) -> None:
        """A node that nothing is kept of and whose server is away joins as soon as it is there."""
        running = RunningNode(own_server, tmp_path)
        await asyncio.to_thread(own_server.__exit__)
        async with running:
            assert running.node.spiffe_id is None
            assert "does not answer" in running.node.state.fault
            await asyncio.to_thread(own_server.__enter__)
            await until(lambda: running.node.state.synced_at, "it has joined")
