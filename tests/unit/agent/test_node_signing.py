"""node_signing.py: what a server says is what the rooms have, as soon as it says it."""

from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.attestations import FakeAttestor
from fakes.authorities import authority_in
from fakes.ca import odd_certificate
from fakes.children import child, peer_of
from fakes.clock import FakeClock
from fakes.given_node import AGENT, FakeNode
from fakes.journals import FakeAuditStore
from fakes.registrations import NODE, TRUST_DOMAIN, entry
from fakes.revocations import FakeRevocationStore
from fakes.signers import LateSigner
from harness.looking import idle
from sojourn.agent.node_signing import NodeSigning
from sojourn.attestation.service import Attestation
from sojourn.audit.journal import Audit
from sojourn.authority.x509_profile import known_signer_id
from sojourn.errors import CannotStart, HeldByServer, NoIdentity, Unavailable
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.identities import Identities
from sojourn.identity.issued_svids import IssuedSvid
from sojourn.identity.registry import Registry
from sojourn.identity.revocations import Revocations
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.identity.svid_signers import Assertion, JwtSignerAtOnce
from sojourn.limits import UPSTREAM_ENTRIES_IN_A_STEP
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain

WEB = entry("/web")
OTHER = TrustDomain("other.example")


class Room:
    """An agent's rooms on a node, and a caller that is `unix:uid:1000`."""

    def __init__(self, folder, *, joined=True, prefetch=0):
        self.clock, self.folder = FakeClock(), folder
        alarms = Alarms(self.clock)
        self.node = FakeNode(folder, self.clock, joined=joined)
        self.store = FakeAuditStore()
        self.audit = Audit(self.store, self.clock)
        self.signing = signing = NodeSigning(self.node, "x509pop", NODE, prefetch, self.audit, self.clock)
        self.registry = Registry(signing.entries, TRUST_DOMAIN, signing.node_ids, self.clock, alarms)
        self.issuing = SvidIssuer(signing.authority, signing.signers, self.clock, alarms, self.audit)
        self.revocations = Revocations(FakeRevocationStore(), signing.authority, self.clock, alarms)
        self.foreign = ForeignBundles(signing.foreign, TRUST_DOMAIN, self.registry)
        attestation = Attestation({"unix": FakeAttestor({"uid:1000"})}, self.clock)
        self.identities = Identities(
            attestation, self.registry, signing.authority, self.issuing, self.revocations, self.foreign, self.clock
        )

    def begin(self):
        self.signing.begin(self.registry, self.foreign, self.identities)
        return self


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path / "server").begin()


@pytest.fixture
def peer():
    with child() as process:
        found = peer_of(process)
        yield found
        found.close()


class TestFollowing:
    def test_entries_and_bundles_of_before(self, tmp_path):
        """What the node has already as the rooms are built is there before anybody asks."""
        room = Room(tmp_path / "server")
        room.node.give(replace(WEB, parent_id=AGENT))
        theirs = Bundle(OTHER, ())
        room.node.federate({OTHER: theirs})
        room.begin()
        assert [WEB.id] == [each.id for each in room.registry]
        assert room.registry.serves(next(iter(room.registry)))
        assert theirs is room.foreign.get(OTHER)

    def test_entries_come_and_go(self, room):
        """An entry is served as soon as the server gives it, and no more once it takes it away."""
        told = []
        room.registry.on_change(told.append)
        room.node.give(WEB, entry("/db"))
        assert {WEB.id, "entry-db"} == {each.id for each in room.registry}
        changed = replace(WEB, hint="new", revision=1)
        room.node.give(changed)
        assert "new" == room.registry.get(WEB.id).hint
        room.node.take(WEB.id)
        assert room.registry.get(WEB.id) is None
        assert [2, 1, 1] == [len(each) for each in told]

    def test_twins_below_other_parents(self, room):
        """Two entries that are the same but for their parents at the server are both there, and go one by one."""
        room.node.give(WEB, replace(WEB, id="twin"))
        room.node.take(WEB.id)
        room.node.take("twin")
        assert 0 == len(room.registry)

    def test_what_is_of_no_use(self, room):
        """An entry that may not be served here is left out, and keeps no other from being served."""
        foreign = replace(WEB, id="odd", spiffe_id=SpiffeId.parse("spiffe://elsewhere.example/web"))
        room.node.give(foreign, WEB)
        assert [WEB.id] == [each.id for each in room.registry]

    async def test_many(self, room):
        """Many entries come some at a time, in which others are answered; what is gone meanwhile does not come."""
        many = [entry(f"/many/{number}", id=f"many-{number}") for number in range(3 * UPSTREAM_ENTRIES_IN_A_STEP)]
        room.node.give(*many)
        assert UPSTREAM_ENTRIES_IN_A_STEP == len(room.registry)
        room.node.take(many[-1].id)
        await idle()
        assert len(many) - 1 == len(room.registry)
        room.node.take(*room.node.entries)
        assert 0 == len(room.registry)

    def test_another_id(self, room):
        """A node that is given another ID serves its entries below that."""
        room.node.give(replace(WEB, parent_id=AGENT))
        other = SpiffeId.parse("spiffe://example.org/spire/agent/x509pop/2")
        room.node.join(other)
        assert other == room.registry.node_id == room.signing.node_id
        assert room.registry.serves(room.registry.get(WEB.id))

    async def test_a_tainted_authority(self, room):
        """What a tainted authority has signed, and is in use, is signed anew at once."""
        room.node.give(WEB)
        made = room.registry.get(WEB.id)
        room.issuing.watch(made.key)
        before = await room.issuing.x509.get(made)
        room.node.x509.vouches = lambda svid: svid.serial != before.serial
        room.node.rebundle(room.node.bundle, frozenset({"some-authority"}))
        await idle()
        assert 2 == len(room.node.x509.asked)
        assert before.serial != (await room.issuing.x509.get(made)).serial


class TestRecords:
    async def test_an_issuer_that_does_not_say_its_id(self, room, monkeypatch):
        """An SVID is served and recorded also where its issuer's certificate cannot be read in full."""
        room.node.give(WEB)
        given = room.node.server.issue_x509(WEB.spiffe_id, timedelta(hours=1))
        odd = replace(given, chain=(given.leaf, odd_certificate()))

        async def sign(_entry):
            return odd

        monkeypatch.setattr(room.node.x509, "sign", sign)
        assert odd is await room.issuing.x509.get(room.registry.get(WEB.id))
        await room.audit.flush()
        (record,) = room.store.fields("x509_svid_issued")
        assert known_signer_id(given.leaf) == record["issuer_id"]


class TestNobodyHasAny:
    async def test_banned(self, room, peer):
        """A banned node's streams end with a clear word; whoever asks is told so at once."""
        room.node.give(WEB)
        async with room.identities.stream(peer, "FetchX509SVID") as stream:
            room.node.refuse("banned")
            with pytest.raises(NoIdentity, match="banned at its SPIRE server"):
                stream.check_open()
        with pytest.raises(NoIdentity, match="no identity issued: this node is banned"):
            await room.identities.of(peer)
        assert "banned" in room.signing.keys_fault()
        await room.audit.flush()
        assert [{"spiffe_id": str(AGENT), "reason": "banned"}] == room.store.fields("node_banned")

    async def test_not_joined(self, tmp_path, peer):
        """Before it has joined callers are told to come again, and not that they have nothing."""
        room = Room(tmp_path / "server", joined=False).begin()
        with pytest.raises(Unavailable, match="has not joined"):
            await room.identities.of(peer)
        assert NODE == room.signing.node_id
        assert "has not joined" in room.signing.keys_fault()
        room.node.join()
        assert AGENT == room.signing.node_id == room.registry.node_id
        assert "" == room.signing.keys_fault()

    async def test_evicted(self, room, peer):
        """An evicted node serves on what it has, and says that it is refused."""
        room.node.give(WEB)
        room.node.refuse("not_attested")
        assert [WEB.id] == [each.id for each in await room.identities.of(peer)]
        assert "refuses this node (not_attested); ask somebody" == room.signing.upstream_fault().removeprefix(
            "the SPIRE server "
        )


class TestFaults:
    async def test_a_refusal_at_the_start(self, tmp_path):
        """An agent whose server says no does not start; one whose server is away does."""
        room = Room(tmp_path / "server", joined=False)
        room.node.state = replace(room.node.state, fault="join token was used", remedy="make another")
        with pytest.raises(CannotStart, match="join token was used; make another"):
            await room.signing.start()
        room.node.state = replace(room.node.state, away_seconds=1.0)
        await room.signing.start()

    def test_a_server_that_is_away(self, room):
        """That no server answers is told after a while, with why."""
        room.node.state = replace(room.node.state, away_seconds=5.0, fault="refused")
        assert "" == room.signing.upstream_fault()
        room.node.state = replace(room.node.state, away_seconds=60.0, fault="refused")
        assert "no SPIRE server has answered for 60 s: refused" == room.signing.upstream_fault()

    def test_syncs_that_fail(self, room):
        """That a server answers, and nothing of it can be had, is told with why; of a banned node that it is banned."""
        room.node.state = replace(room.node.state, behind_seconds=90.0, fault="no good bundle")
        assert "nothing has been synced with the SPIRE server for 90 s: no good bundle" == room.signing.upstream_fault()
        room.node.state = replace(room.node.state, fault="")
        assert "for 90 s: no sync has come to its end" in room.signing.upstream_fault()
        room.node.refuse("banned")
        assert "" == room.signing.upstream_fault()

    def test_a_clock_that_is_behind(self, room):
        """That what the server signs is not good here yet is told, with what to do."""
        room.node.state = replace(room.node.state, clock_behind_seconds=7_190.0)
        said = "this machine's clock is 7190 s or more behind the SPIRE server's: set it right"
        assert said == room.signing.upstream_fault()

    def test_its_own_svid_has_ended(self, room):
        """A node whose own SVID has ended is not ready."""
        room.clock.advance(3_601)
        assert "this node's own SVID ended at" in room.signing.keys_fault()

    def test_its_name_and_svid(self, room):
        """What the agent shows to others is the SVID that the server gave it, and its newest."""
        shown = room.signing.own_svid(room.issuing)
        before = shown.present
        assert before is shown.present
        assert room.node.svid.chain[0] == before.context.default.leaf == room.signing.certificate
        room.node.join()
        assert before.version < shown.present.version
        assert AGENT == shown.spiffe_id


class TestAssertions:
    ASKED = Assertion(WEB.spiffe_id, "https://token.example", timedelta(minutes=1), "https://issuer.example")

    async def test_no_entry(self, room):
        """Nobody signs for an ID that has no entry here, such as the node's own."""
        with pytest.raises(HeldByServer, match="none for a node's own ID"):
            room.signing.assertions.at_once(replace(self.ASKED, spiffe_id=AGENT))

    async def test_further_claims(self, room):
        """Claims that a server does not sign are refused, by their names."""
        room.node.give(WEB)
        with pytest.raises(HeldByServer, match="further claims \\(tid\\)"):
            room.signing.assertions.at_once(replace(self.ASKED, claims={"tid": "1"}))

    async def test_with_an_issuer(self, room):
        """What the server signs for a workload's entry, with its issuer, is what its token endpoint is shown."""
        room.node.give(WEB)
        signed = authority_in(room.folder / "other", room.clock, jwt_issuer="https://issuer.example")
        room.node.jwt = room.signing.assertions._signer = LateSigner(
            JwtSignerAtOnce(signed, timedelta(minutes=5)), held=False
        )
        svid = await room.signing.assertions.sign(self.ASKED)
        assert (WEB.spiffe_id, ("https://token.example",)) == (svid.spiffe_id, svid.audience)
        with pytest.raises(HeldByServer, match="takes RS256 alone, and the SPIRE server signs by ES256"):
            await room.signing.assertions.sign(replace(self.ASKED, algorithm="RS256"))

    async def test_no_issuer(self, room):
        """A server that says no issuer is told what to set."""
        room.node.give(WEB)
        assert room.signing.assertions.at_once(self.ASKED) is None
        with pytest.raises(HeldByServer, match="set jwt_issuer"):
            await room.signing.assertions.sign(self.ASKED)


class TestStores:
    async def test_nothing_is_changed_here(self, room):
        """Whatever would change entries or bundles in the registry itself changes nothing."""
        with pytest.raises(HeldByServer):
            await room.registry.create([entry("/new")])
        with pytest.raises(HeldByServer):
            await room.foreign.put(Bundle(OTHER, ()))
        assert (0, None) == (len(room.registry), room.foreign.get(OTHER))


class TestRevoking:
    async def test_what_is_not_stamped(self, room):
        """A server's SVIDs do not say when they were signed: one is denied by its own number, and none for its ID."""
        room.node.give(WEB)
        revocations = room.revocations
        revocations.put_identity(revocations.next_identity("spiffe_id", str(WEB.spiffe_id)), [])
        assert not revocations.denies("x509", "abcd", WEB.spiffe_id)
        await revocations.revoke([IssuedSvid("x509", "abcd", str(WEB.spiffe_id), WEB.id, 2_000_000_000)])
        assert revocations.denies("x509", "abcd", WEB.spiffe_id)
        assert () == revocations.crls
