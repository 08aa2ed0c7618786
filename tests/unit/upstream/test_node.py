"""node.py: what a node believes of its server, and what it does when that is away, refuses it, or lies."""

import asyncio
import tempfile
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from traceback import walk_tb

import grpc
import pytest
from fakes.ca import FakeCa, odd_certificate
from fakes.nodes import ShiftedClock, node_of
from fakes.spire_server import FakeSpireServer
from harness.looking import WAIT_SECONDS, OpenFiles
from harness.spirenode import until
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.errors import NodeRefused, NotFound, Unavailable, UpstreamUnavailable
from sojourn.jose.jws import SigningKey
from sojourn.limits import REFRESH_HINT_SECONDS
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain
from sojourn.upstream import authorized_entries, server_link, synchronization
from sojourn.upstream.connection import ServerConnection
from sojourn.upstream.node_attestation import JoinToken
from structlog.testing import capture_logs


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server is asked at once."""
    monkeypatch.setattr(server_link, "UPSTREAM_MOVE_SECONDS", 0.0)


@pytest.fixture
async def server():
    async with FakeSpireServer() as running:
        yield running


class TestSync:
    async def test_news_is_told(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Entries that are new, changed or gone are told once each, and what is the same is the same object."""
        server.register("a")
        server.register("b")
        async with node_of(server, tmp_path) as node:
            told = []
            node.on_entries(lambda changed, gone: told.append((set(changed), set(gone))))
            kept = node.entries["a"]
            await node.sync()
            assert [] == told
            server.register("b", "/other")
            server.register("c")
            await node.sync()
            del server.entries["b"]
            await node.sync()
            assert [({"b", "c"}, set()), (set(), {"b"})] == told
            assert node.entries["a"] is kept

    async def test_by_revisions(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Where the server lists revisions, what has changed is asked for, and what has gone is gone."""
        server.page = 2
        for name in "abcde":
            server.register(name)
        async with node_of(server, tmp_path) as node:
            before = dict(node.entries)
            server.register("c", "/changed")
            del server.entries["e"]
            await node.sync()
            assert set("abcd") == set(node.entries)
            assert all(node.entries[name] is before[name] for name in "abd")
            assert "/changed" == node.entries["c"].spiffe_id.path

    async def test_more_than_there_may_be(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Entries beyond the limit are left out and told, the same ones each time; without end none are read."""
        monkeypatch.setattr(authorized_entries, "UPSTREAM_ENTRIES", 3)
        server.page = 2
        for name in "edcba":
            server.register(name)
        async with node_of(server, tmp_path) as node:
            assert set("abc") == set(node.entries)
            assert 2 == node.state.left_out
            for name in "fg":
                server.register(name)
            await node.sync()
            assert "more than 6 entries" in node.state.fault
            assert set("abc") == set(node.entries)

    @pytest.mark.parametrize("page", [500, 1])
    async def test_what_is_no_entry_of_ours(self, server: FakeSpireServer, tmp_path: Path, page: int) -> None:
        """Entries of another trust domain, without selectors, or of a reserved path are left out and told once."""
        server.page = page
        server.register("good")
        server.register("foreign", spiffe_id=types.SPIFFEID(trust_domain="evil.example", path="/x"))
        server.register("bare", selectors=[])
        server.register("agent", "/spire/agent/join_token/other")
        server.register("odd", selectors=[types.Selector(type="", value="x")])
        with capture_logs() as lines:
            async with node_of(server, tmp_path) as node:
                await node.sync()
                assert {"good"} == set(node.entries)
                assert 4 == node.state.left_out
        told = [each for each in lines if each["event"] == "node_entries_left_out"]
        assert [4] == [each["count"] for each in told]
        assert {"foreign", "bare", "agent", "odd"} == set(told[0]["entries"])

    async def test_entries_that_were_not_asked_for(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Of the entries in a page those are taken that were asked for, and nothing is kept of the others."""
        server.page = 1
        server.register("a")
        server.register("b")
        server.unasked = [types.Entry(id="bad"), types.Entry(id="good")]
        server.unasked[1].MergeFrom(server.entries["a"])
        server.unasked[1].id = "good"
        async with node_of(server, tmp_path) as node:
            assert {"a", "b"} == set(node.entries)
            assert 0 == node.state.left_out

    @pytest.mark.parametrize("page", [500, 1])
    async def test_an_id_without_end(self, server: FakeSpireServer, tmp_path: Path, page: int) -> None:
        """However long the ID of an entry is that is left out, a line of the log is short."""
        server.page = page
        server.register("good")
        server.register("z" * 1_000_000)
        with capture_logs() as lines:
            async with node_of(server, tmp_path) as node:
                assert (1, {"good"}) == (node.state.left_out, set(node.entries))
        (told,) = (each for each in lines if each["event"] == "node_entries_left_out")
        assert len(str(told)) < 2_000

    async def test_too_many_that_cannot_be_read(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Entries that cannot be read are counted to a limit; a server that has more of them gives none."""
        monkeypatch.setattr(authorized_entries, "UPSTREAM_ENTRIES", 3)
        for number in range(7):
            server.register(f"bad-{number}", selectors=[])
        async with node_of(server, tmp_path) as node:
            assert "more than 6 entries" in node.state.fault
            assert 0 == node.state.left_out

    async def test_a_server_without_a_refresh_hint(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Where the server does not say how often its bundle is to be fetched, others are told what they are elsewhere."""
        async with node_of(server, tmp_path) as node:
            assert REFRESH_HINT_SECONDS == node.bundle.document()["spiffe_refresh_hint"]

    async def test_federated(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Bundles of the trust domains that entries name come and go; one that is bad leaves the last good one."""
        partner = FakeCa.make("partner.example")
        good = types.Bundle(trust_domain="partner.example")
        good.x509_authorities.add(asn1=partner.root_der)
        server.federated["partner.example"] = good
        server.register("a", federates_with=["partner.example", "unknown.example"])
        domain = TrustDomain("partner.example")
        async with node_of(server, tmp_path) as node:
            told = []
            node.on_federated(lambda changed, gone: told.append((set(changed), set(gone))))
            assert {domain} == set(node.federated)
            server.federated["partner.example"] = types.Bundle(trust_domain="evil.example")
            await node.sync()
            assert {domain} == set(node.federated)
            server.register("a")
            await node.sync()
            assert [(set(), {domain})] == told

    async def test_all_authorities_of_another_revoked(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Another trust domain that has revoked all its authorities is trusted no more, after a restart neither."""
        domain, partner = TrustDomain("partner.example"), FakeCa.make("partner.example")
        server.federated["partner.example"] = types.Bundle(trust_domain="partner.example")
        server.federated["partner.example"].x509_authorities.add(asn1=partner.root_der)
        server.register("a", federates_with=["partner.example"])
        async with node_of(server, tmp_path) as node:
            assert (partner.root,) == node.federated[domain].x509_authorities
            server.federated["partner.example"] = types.Bundle(trust_domain="partner.example", sequence_number=1)
            await node.sync()
            assert () == node.federated[domain].x509_authorities
        server.failing = grpc.StatusCode.UNAVAILABLE
        async with node_of(server, tmp_path) as node:
            assert {"a"} == set(node.entries)
            assert () == node.federated[domain].x509_authorities

    async def test_what_the_rest_is_without(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Without a usable bundle of the trust domain entries and other bundles come still, and the one before stays;
        and bundles come without entries.
        """
        partner = types.Bundle(trust_domain="partner.example")
        partner.x509_authorities.add(asn1=FakeCa.make("partner.example").root_der)
        server.register("a", federates_with=["partner.example"])
        async with node_of(server, tmp_path) as node:
            before = node.bundle
            server.unusable_bundle = True
            server.register("b")
            server.federated["partner.example"] = partner
            await node.sync()
            assert before is node.bundle
            assert "has no X.509 authority" in node.state.fault
            assert {"a", "b"} == set(node.entries)
            assert {TrustDomain("partner.example")} == set(node.federated)
            server.unusable_bundle = False
            server.failing, server.failing_in = grpc.StatusCode.PERMISSION_DENIED, {"SyncAuthorizedEntries"}
            server.federated["partner.example"] = types.Bundle(trust_domain="partner.example")
            await node.sync()
            assert "told to fail" in node.state.fault
            assert () == node.federated[TrustDomain("partner.example")].x509_authorities

    async def test_how_long_it_is_behind(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A node whose syncs fail says so after some polls, and no more once one has succeeded."""
        clock = ShiftedClock()
        async with node_of(server, tmp_path, clock=clock, poll=timedelta(seconds=10)) as node:
            server.unusable_bundle = True
            clock.ahead = timedelta(seconds=50)
            await node.sync()
            assert node.state.behind_seconds is None
            clock.ahead = timedelta(seconds=70)
            assert 70 == pytest.approx(node.state.behind_seconds, abs=5)
            server.unusable_bundle = False
            await node.sync()
            assert node.state.behind_seconds is None
        server.unusable_bundle = True
        async with node_of(server, tmp_path, clock=clock) as node:
            assert node.state.behind_seconds is None
            clock.ahead += timedelta(seconds=40)
            await node.sync()
            assert 40 == pytest.approx(node.state.behind_seconds, abs=5)

    async def test_federated_bundles_after_a_failure(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A sync that fails over one bundle leaves no call for another under way, and what has come is there."""
        names = [f"d{number:02}.example" for number in range(40)]
        for name in names:
            server.federated[name] = types.Bundle(trust_domain=name)
        server.register("a", federates_with=names)
        server.slow_federated = set(names[1:])
        server.failing_federated[names[5]] = grpc.StatusCode.UNAVAILABLE
        async with node_of(server, tmp_path) as node:
            assert "told to fail" in node.state.fault
            asked = server.calls.count("GetFederatedBundle")
            assert asked < len(names)
            await asyncio.sleep(0.3)
            assert asked == server.calls.count("GetFederatedBundle")
            assert {TrustDomain(names[0])} == set(node.federated)

    async def test_more_trust_domains_than_there_may_be(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of more trust domains than there may be the bundles of some are had, always the same; it is told once."""
        monkeypatch.setattr(synchronization, "FOREIGN_DOMAINS", 2)
        names = [f"d{number}.example" for number in range(4)]
        for name in names:
            server.federated[name] = types.Bundle(trust_domain=name)
        server.register("a", federates_with=names[2:])
        server.register("b", federates_with=names[:3])
        with capture_logs() as lines:
            async with node_of(server, tmp_path) as node:
                await node.sync()
                assert {TrustDomain(each) for each in names[:2]} == set(node.federated)
        told = [each for each in lines if each["event"] == "node_trust_domains_left_out"]
        assert [(2, names[2:])] == [(each["count"], each["trust_domains"]) for each in told]

    @pytest.mark.parametrize("status", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE])
    async def test_one_federated_bundle_that_is_not_had(
        self, server: FakeSpireServer, tmp_path: Path, status: grpc.StatusCode
    ) -> None:
        """A bundle of another trust domain that is never had keeps nobody from following the server's own."""
        partner = FakeCa.make("partner.example")
        server.federated["partner.example"] = types.Bundle(trust_domain="partner.example")
        server.federated["partner.example"].x509_authorities.add(asn1=partner.root_der)
        server.failing_federated["bad.example"] = status
        server.register("a", federates_with=["bad.example", "partner.example"])
        async with node_of(server, tmp_path) as node:
            if status is grpc.StatusCode.PERMISSION_DENIED:
                assert "" == node.state.fault
                assert {TrustDomain("partner.example")} == set(node.federated)
            server.renew_authorities()
            await node.sync()
            assert node.trusted is node.bundle
            assert server.ca.root in node.trusted.x509_authorities


class TestSigning:
    async def test_many_by_one_call(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """What is asked for together goes to the server together, each with its own answer."""
        for number in range(20):
            server.register(f"e{number}")
        server.refusing_entries.add("e7")
        async with node_of(server, tmp_path) as node:
            asked = (node.x509.sign(each) for each in node.entries.values())
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert [20] == server.batches
            assert 1 == sum(isinstance(each, NotFound) for each in found)
            assert 19 == node.state.svids

    async def test_for_another_id(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """An SVID of another SPIFFE ID than the entry's is not taken, and its neighbours are."""
        server.register("a")
        server.register("b")
        server.signs_for["a"] = "/admin"
        async with node_of(server, tmp_path) as node:
            lied, good = await asyncio.gather(
                *(node.x509.sign(node.entries[name]) for name in "ab"), return_exceptions=True
            )
            assert isinstance(lied, Unavailable)
            assert "/b" == good.spiffe_id.path
            with pytest.raises(Unavailable, match="/admin"):
                await node.jwt.sign(node.entries["a"], ["x"])

    async def test_more_in_the_chain(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Certificates that do not lead from an SVID to the bundle are not given out with it, nor shown by the node."""
        server.register("a")
        server.more_in_chains = [odd_certificate(), server.ca.root]
        async with node_of(server, tmp_path) as node:
            assert (server.ca.intermediate,) == node.own_svid.chain[1:]
            assert (server.ca.intermediate,) == (await node.x509.sign(node.entries["a"])).chain[1:]

    async def test_refused_by_the_server(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """What the server refuses to sign is no fault of the workload's request: it is told to come again."""
        server.register("a")
        async with node_of(server, tmp_path) as node:
            for status in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED):
                server.failing = status
                with pytest.raises(Unavailable, match="told to fail"):
                    await node.jwt.sign(node.entries["a"], ["x"])
                with pytest.raises(Unavailable, match="told to fail"):
                    await node.x509.sign(node.entries["a"])

    async def test_for_another_key(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """An SVID for a key that is not ours is not taken."""
        server.register("a")
        async with node_of(server, tmp_path) as node:
            server.own_keys = True
            with pytest.raises(Unavailable, match="not for our key"):
                await node.x509.sign(node.entries["a"])

    async def test_node_s_own_for_another_key(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A node does not join by an SVID for a key that is not its own."""
        server.own_keys = True
        async with node_of(server, tmp_path) as node:
            assert node.spiffe_id is None
            assert "not for our key" in node.state.fault

    async def test_of_another_trust_domain(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """An SVID of another trust domain is not taken."""
        server.register("a")
        server.signs_for["a"] = "spiffe://evil.example/a"
        async with node_of(server, tmp_path) as node:
            with pytest.raises(Unavailable):
                await node.x509.sign(node.entries["a"])

    async def test_by_authorities_that_are_new(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """What an authority or a key has signed that the node has not heard of yet is good once it has."""
        server.register("a")
        async with node_of(server, tmp_path) as node:
            server.renew_authorities()
            assert node.x509.vouches(await node.x509.sign(node.entries["a"]))
            server.jwt_key = SigningKey.generate("k3")
            assert node.jwt.vouches(await node.jwt.sign(node.entries["a"], ["x"]))

    async def test_near_their_end(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """The state counts SVIDs that should have been renewed and were not, until their entry is gone."""
        server.register("a")
        clock = ShiftedClock()
        async with node_of(server, tmp_path, clock=clock) as node:
            await node.x509.sign(node.entries["a"])
            clock.ahead = timedelta(minutes=40)
            assert (1, 0) == (node.state.svids, node.state.svids_near_end)
            clock.ahead = timedelta(minutes=50)
            assert (1, 1) == (node.state.svids, node.state.svids_near_end)
            del server.entries["a"]
            await node.sync()
            assert (0, 0) == (node.state.svids, node.state.svids_near_end)

    async def test_wit(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A WIT-SVID is refused in words that say why."""
        server.register("a")
        async with node_of(server, tmp_path) as node:
            assert node.wit.at_once(node.entries["a"]) is None
            with pytest.raises(Exception, match="signs no WIT-SVIDs"):
                await node.wit.sign(node.entries["a"])

    async def test_tainted(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """What a tainted authority or key has signed is not vouched for from the next sync on, and both are told."""
        server.register("a")
        async with node_of(server, tmp_path) as node:
            lost: set[str] = set()
            node.on_bundle(lambda _bundle, ids: lost.update(ids))
            svid = await node.x509.sign(node.entries["a"])
            token = await node.jwt.sign(node.entries["a"], ["x"])
            assert node.x509.vouches(svid)
            assert node.jwt.vouches(token)
            server.tainted = {server.root_id, "k1"}
            await node.sync()
            assert {server.root_id, "k1"} == lost
            assert not node.x509.vouches(svid)
            assert not node.jwt.vouches(token)


class TestVersion:
    async def test_told_once(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """The server is told once in a run which agent this is, and of which version."""
        async with node_of(server, tmp_path) as node:
            await until(lambda: server.versions, "it is told")
            for _ in range(3):
                await node.sync()
        assert [f"sojourn {version('sojourn')}"] == server.versions
        async with node_of(server, tmp_path) as node:
            await node.sync()
            await until(lambda: len(server.versions) == 2, "it is told in the next run")

    async def test_a_server_that_takes_none(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """An older server, which has no such call, is asked once, and nobody is told of it."""
        server.takes_no_status = True
        with capture_logs() as lines:
            async with node_of(server, tmp_path) as node:
                await until(lambda: "PostStatus" in server.calls, "it is tried")
                for _ in range(3):
                    await node.sync()
                assert "" == node.state.fault
        assert 1 == server.calls.count("PostStatus")
        assert ["node_attested"] == [each["event"] for each in lines]

    async def test_a_server_that_was_away(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """Where it could not be told the server is told after the next sync."""
        server.failing, server.failing_in = grpc.StatusCode.UNAVAILABLE, {"PostStatus"}
        async with node_of(server, tmp_path) as node:
            await node.sync()
            await until(lambda: "PostStatus" in server.calls, "it is tried")
            server.failing = None
            async with asyncio.timeout(30):
                while not server.versions:
                    await node.sync()
                    await asyncio.sleep(0.02)
        assert 1 == len(server.versions)


class TestAway:
    async def test_an_authority_that_it_does_not_know(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A server by an authority that the node has never heard of is not believed; it is said what to do."""
        domain = server.ca.trust_domain
        other = Bundle(domain, (FakeCa.make(domain.name).root,))
        async with node_of(server, tmp_path, bootstrap=other) as node:
            assert "put what `spire-server bundle show` prints in the place of the bundle" in node.state.fault

    async def test_it_is_told_once(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """That no server answers is one line of the log, however often it is tried, and so is that one is back."""
        server.register("a")
        with capture_logs() as lines:
            async with node_of(server, tmp_path) as node:
                server.failing = grpc.StatusCode.UNAVAILABLE
                for _ in range(3):
                    await node.sync()
                    with pytest.raises(UpstreamUnavailable):
                        await node.x509.sign(node.entries["a"])
                assert node.state.away_seconds is not None
                assert {"a"} == set(node.entries)
                server.failing = None
                await node.sync()
                assert node.state.away_seconds is None
        events = [each["event"] for each in lines]
        assert (1, 1) == (events.count("node_server_away"), events.count("node_server_back"))

    @pytest.mark.parametrize(
        "status",
        [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.RESOURCE_EXHAUSTED],
        ids=lambda status: status.name,
    )
    async def test_a_call_that_fails_at_the_server(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: grpc.StatusCode
    ) -> None:
        """A server that cannot do one thing is not away: its words are told, its connection is kept, none syncs."""
        opened, before = [], ServerConnection.__aenter__

        async def counted(connection: ServerConnection) -> ServerConnection:
            opened.append(connection)
            return await before(connection)

        server.register("a")
        with capture_logs() as lines:
            async with node_of(server, tmp_path) as node:
                monkeypatch.setattr(ServerConnection, "__aenter__", counted)
                await node.jwt.sign(node.entries["a"], ["x"])
                known = len(opened)
                server.failing, server.failing_in = status, {"NewJWTSVID"}
                for _ in range(5):
                    with pytest.raises(Unavailable, match="it was told to fail"):
                        await node.jwt.sign(node.entries["a"], ["x"])
                assert (known, None) == (len(opened), node.state.away_seconds)
        assert "node_server_away" not in [each["event"] for each in lines]

    async def test_a_sync_that_fails_at_the_server(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """That the server cannot sync is told once, with its words, and what there is is served on."""
        server.register("a")
        with capture_logs() as lines:
            async with node_of(server, tmp_path) as node:
                server.failing = grpc.StatusCode.INTERNAL
                for _ in range(3):
                    await node.sync()
                assert {"a"} == set(node.entries)
                assert "it was told to fail" in node.state.fault
        assert ["node_attested", "node_not_synced"] == [each["event"] for each in lines]

    async def test_pauses_grow_and_end(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """While a server is away it is asked more seldom, but after half a minute at the latest."""
        async with node_of(server, tmp_path) as node:
            assert 4 <= await node.sync() <= 6
            server.failing = grpc.StatusCode.UNAVAILABLE
            pauses = [await node.sync() for _ in range(6)]
            assert pauses[0] < 10
            assert 30 == pauses[-1]

    @pytest.mark.full
    async def test_connections_that_end_by_age(self, tmp_path: Path) -> None:
        """A server that ends each connection after a while loses no call."""
        async with FakeSpireServer(age_ms=50) as server:
            server.register("a")
            async with node_of(server, tmp_path) as node:
                ends = asyncio.get_running_loop().time() + 2
                while asyncio.get_running_loop().time() < ends:
                    await asyncio.gather(*(node.jwt.sign(node.entries["a"], [str(each)]) for each in range(5)))
                assert "" == node.state.fault

    async def test_nothing_is_left_open(self, tmp_path: Path) -> None:
        """However often a server goes and comes, and nodes with it, no file and no connection stays open."""
        async with FakeSpireServer() as server:
            server.register("a")
            for turn in range(4):
                async with node_of(server, tmp_path) as node:
                    for failing in (grpc.StatusCode.UNAVAILABLE, None) * 5:
                        server.failing = failing
                        await node.sync()
                    await node.x509.sign(node.entries["a"])
                if turn == 1:
                    before = OpenFiles()
            # The server's end of a connection is closed a moment after the node's.
            async with asyncio.timeout(20):
                while before.opened_since():
                    await asyncio.sleep(0.01)

    async def test_ended_while_calls_are_under_way(
        self, server: FakeSpireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A node that ends keeps nobody waiting for a server that does not answer, and leaves nothing behind."""
        server.register("a")
        ours, made = [], tempfile.mkdtemp
        monkeypatch.setattr(tempfile, "mkdtemp", lambda **options: ours.append(made(**options)) or ours[-1])
        async with node_of(server, tmp_path) as node:
            server.delay = 30
            asked = asyncio.ensure_future(node.jwt.sign(node.entries["a"], ["x"]))
            while server.calls[-1] != "NewJWTSVID":
                await asyncio.sleep(0.01)
        with pytest.raises(UpstreamUnavailable):
            await asyncio.wait_for(asked, WAIT_SECONDS)
        assert ours
        assert not [each for each in ours if Path(each).exists()]

    async def test_another_server_takes_over(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """With two servers the loss of the one that is asked fails no call."""
        server.register("a")
        async with FakeSpireServer() as other:
            other.ca, other.jwt_key, other.entries = server.ca, server.jwt_key, server.entries
            await other.__aexit__()
            await other.__aenter__()  # it shows an SVID of the same authority from now on
            async with node_of(server, tmp_path, servers=[server.address, other.address]) as node:
                asked, left = (server, other) if server.calls else (other, server)
                await node.x509.sign(node.entries["a"])
                assert [] == left.calls
                await asked.__aexit__()
                await node.x509.sign(node.entries["a"])
                assert left.address == node.state.server
                await asked.__aenter__()

    async def test_nothing_is_kept(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A node without a server and with nothing kept says why there is nothing, and joins when one is there."""
        server.failing = grpc.StatusCode.UNAVAILABLE
        clock = ShiftedClock()
        async with node_of(server, tmp_path, clock=clock) as node:
            with pytest.raises(Unavailable, match="has not joined"):
                _ = node.own_svid
            server.failing = None
            clock.ahead += timedelta(seconds=5)
            await node.sync()
            assert "" == node.state.fault


class TestOwnSvid:
    @pytest.mark.parametrize("reattestable", [True, False])
    async def test_renewed_in_time(self, server: FakeSpireServer, tmp_path: Path, *, reattestable: bool) -> None:
        """The node's own SVID is renewed after the share of its life, by the way that the server wants."""
        server.reattestable = reattestable
        clock = ShiftedClock()
        async with node_of(server, tmp_path, clock=clock) as node:
            before = node.svid
            clock.ahead = timedelta(minutes=25)
            await node.sync()
            assert before is node.svid
            clock.ahead = timedelta(minutes=31)
            await node.sync()
            assert before is not node.svid
            assert (2 if reattestable else 1) == server.calls.count("AttestAgent")
            assert (0 if reattestable else 1) == server.calls.count("RenewAgent")

    async def test_by_an_authority_that_stays_tainted(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A server that goes on signing by what it has tainted is asked for another SVID now and then, not for ever."""
        clock = ShiftedClock()
        async with node_of(server, tmp_path, clock=clock) as node:
            server.tainted = {server.root_id}
            for _ in range(4):
                await node.sync()
            assert 1 == server.calls.count("RenewAgent")
            clock.ahead += timedelta(minutes=1)
            await node.sync()
            assert 2 == server.calls.count("RenewAgent")

    async def test_an_outage_beyond_its_end(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A node whose own SVID has ended in an outage goes on with what it has, and attests anew when it can."""
        server.register("a")
        server.reattestable = True
        clock = ShiftedClock()
        async with node_of(server, tmp_path, clock=clock) as node:
            server.failing = grpc.StatusCode.UNAVAILABLE
            clock.ahead = timedelta(hours=2)
            await node.sync()
            assert {"a"} == set(node.entries)
            server.failing = None
            server.agent_ttl = timedelta(hours=4)
            clock.ahead += timedelta(minutes=1)
            await node.sync()
            assert "" == node.state.fault

    async def test_it_cannot_attest_anew(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A node whose SVID has ended and whose token is used up serves on, and says which command helps."""
        server.register("a")
        clock = ShiftedClock()
        given = iter([JoinToken("good"), *[JoinToken("used")] * 5])
        async with node_of(server, tmp_path, clock=clock, attestor=lambda: next(given)) as node:
            clock.ahead = timedelta(hours=2)
            with capture_logs() as lines:
                await node.sync()
            assert {"a"} == set(node.entries)
            assert "spire-server token generate" in node.state.remedy
            assert ["node_not_attested"] == [each["event"] for each in lines]
            assert "already been used" in node.state.fault
            with pytest.raises(Unavailable, match="already been used"):
                await node.x509.sign(node.entries["a"])

    async def test_what_lasts_does_not_grow(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """However long a node is refused, what is known of that stays as large as it was."""
        server.register("a")
        async with node_of(server, tmp_path) as node:
            server.refusing = "banned"
            deep = []
            for _ in range(5):
                await node.sync()
                with pytest.raises(NodeRefused) as refused:
                    await node.jwt.sign(node.entries.get("a"), ["x"])
                deep.append(len(list(walk_tb(refused.value.__traceback__))))
            assert deep[-1] <= deep[1]

    async def test_must_reattest(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A node that hears on renewing that it has to attest anew does so."""
        clock = ShiftedClock()
        async with node_of(server, tmp_path, clock=clock) as node:
            before = node.svid
            server.reattestable = True
            clock.ahead = timedelta(minutes=31)
            await node.sync()
            await node.sync()
            assert before is not node.svid
            assert "" == node.state.refused

    @pytest.mark.parametrize("reason", ["expired", "not_attested", "not_active"])
    async def test_refused(self, server: FakeSpireServer, tmp_path: Path, reason: str) -> None:
        """A node that is refused attests anew, and serves on meanwhile."""
        server.register("a")
        async with node_of(server, tmp_path) as node:
            refused = []
            node.on_refused(lambda refusal: refused.append(refusal.reason_code))
            server.refusing = reason
            with pytest.raises(NodeRefused):
                await node.x509.sign(node.entries["a"])
            assert reason == node.state.refused
            assert {"a"} == set(node.entries)
            await node.sync()
            assert "" == node.state.refused
            assert [reason] == refused
            await node.x509.sign(node.entries["a"])

    async def test_a_clock_that_was_wrong(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A node whose clock was ahead for a while, and whose token is used up, is as before once it is right."""
        server.register("a")
        clock = ShiftedClock()
        given = iter([JoinToken("good"), *[JoinToken("used")] * 5])
        async with node_of(server, tmp_path, clock=clock, attestor=lambda: next(given)) as node:
            before = node.svid
            clock.wall_ahead = timedelta(days=1)
            await node.sync()
            assert node.state.fault
            clock.wall_ahead = timedelta()
            clock.ahead += timedelta(minutes=2)
            await node.sync()
            assert "" == node.state.fault
            assert before is node.svid
            await node.x509.sign(node.entries["a"])


class TestBanned:
    async def test_evicted_after_that(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A node that was banned and is evicted stays without anything while it cannot attest anew."""
        server.register("a")
        clock = ShiftedClock()
        given = iter([JoinToken("good"), *[JoinToken("used")] * 5])
        async with node_of(server, tmp_path, clock=clock, attestor=lambda: next(given)) as node:
            for reason in ("banned", "not_attested"):
                server.refusing = reason
                clock.ahead += timedelta(minutes=2)
                await node.sync()
                assert reason == node.state.refused
                assert {} == node.entries

    async def test_gives_out_nothing(self, server: FakeSpireServer, tmp_path: Path) -> None:
        """A banned node withdraws what it had, keeps nothing on disk, asks slowly, and comes back when it may."""
        server.register("a")
        clock = ShiftedClock()
        async with node_of(server, tmp_path, clock=clock) as node:
            entry = node.entries["a"]
            await node.x509.sign(entry)
            gone: list[str] = []
            node.on_entries(lambda _changed, ids: gone.extend(ids))
            server.refusing = "banned"
            await node.sync()
            assert node.state.banned
            assert ["a"] == gone
            with pytest.raises(NodeRefused, match="banned"):
                await node.x509.sign(entry)
            asked = len(server.calls)
            for _ in range(3):
                await node.sync()
            assert asked == len(server.calls)
            while list((tmp_path / "node").iterdir()):
                await asyncio.sleep(0.01)
            server.refusing = ""
            clock.ahead += timedelta(minutes=2)
            await node.sync()
            assert {"a"} == set(node.entries)
            assert not node.state.banned
            assert "" == node.state.fault
        assert {"node.sealed", "entries.sealed"} <= {each.name for each in (tmp_path / "node").iterdir()}
