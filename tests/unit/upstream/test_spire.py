"""spire.py: what a SPIRE server that signs the intermediate may answer, and what becomes of it."""

from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.certificates import issue
from fakes.upstreams import DAY, GOOD, HOUR, below, root_at
from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.authority.intermediate_lint import check_signed
from sojourn.authority.root_signer import IntermediateRequest
from sojourn.errors import NoIdentity, NotFound, Refused, Unavailable, UpstreamNotGood, UpstreamUnavailable
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.upstream import downstream_identities
from sojourn.upstream.downstream_identities import OfNode, OfWorkloadApi
from sojourn.upstream.spire import SpireUpstream

DOMAIN = TrustDomain("example.org")
ONE, TWO = (SpiffeId.parse(f"spiffe://example.org/{name}") for name in ("one", "two"))
# A SPIRE server's authorities have no path length.
OPEN = {**GOOD, "constraints": (type(GOOD["constraints"][0])(ca=True, path_length=None), True)}


def der(*certificates):
    return [each.public_bytes(Encoding.DER) for each in certificates]


class Server:
    """Answers as a test has it, in the place of the way to a server, and of whatever gives an identity."""

    def __init__(self, clock):
        self.clock = clock
        self.root = root_at(clock)
        self.failing = None
        self.nobody = None
        self.chain = None
        self.bundle = [self.root.certificate]
        self.tainted = set()
        self.asked = []
        self.upstream = SpireUpstream(["127.0.0.1:1"], DOMAIN, self, clock)
        self.upstream._link = self  # no server is there
        self.domain = DOMAIN.name

    async def have(self):
        if self.nobody is not None:
            raise self.nobody
        return None, Bundle(DOMAIN, (self.root.certificate,))

    def describe(self):
        return {"socket": "/s"}

    async def close(self):
        """Both of them."""

    async def call(self, work):
        return await work(self)

    async def unary(self, method, request, _answer, _seconds=0):
        self.asked.append(request)
        if self.failing is not None:
            raise self.failing
        if method.endswith("/GetBundle"):
            told = [types.X509Certificate(asn1=each, tainted=each in self.tainted) for each in der(*self.bundle)]
            return types.Bundle(trust_domain=self.domain, x509_authorities=told)
        chain = self.chain if self.chain is not None else der(self.signed(request.csr).certificate)
        return pb.NewDownstreamX509CaResponse(ca_cert_chain=chain, x509_authorities=der(*self.bundle))

    def signed(self, _csr, **changes):
        now = self.clock.now()
        key = SimpleNamespace(public_key=self.csr.public_key)
        times = {"begins": now, "ends": now + 12 * HOUR}
        return issue(self.root, OPEN, subject="downstream", key=key, **{**times, **changes})

    async def sign(self, ttl=DAY):
        asked = IntermediateRequest(DOMAIN, ec.generate_private_key(ec.SECP256R1()), ttl)
        self.csr = asked.csr
        signed = await self.upstream.sign(asked.csr, asked.ttl)
        return check_signed(asked, signed, self.clock.now(), HOUR)


@pytest.fixture
def server(clock):
    return Server(clock)


class TestSigns:
    async def test_as_a_server_does(self, server):
        """An authority without a path length, as SPIRE signs one, is good; its end is the server's."""
        signed = await server.sign()
        assert (1, (server.root.certificate,)) == (len(signed.chain), signed.roots)
        assert DAY.total_seconds() == server.asked[0].preferred_ttl
        assert {"servers": "127.0.0.1:1", "socket": "/s"} == server.upstream.describe()

    async def test_with_a_root_that_has_ended(self, server, clock):
        """A root that has ended is in a SPIRE server's bundle for another day: it is left out, and nothing else fails."""
        ended = root_at(clock, "ended", ends=clock.now() - HOUR)
        server.bundle.append(ended.certificate)
        assert (server.root.certificate,) == (await server.sign()).roots
        assert (server.root.certificate,) == (await server.upstream.look()).roots

    async def test_below_another_authority(self, server, clock):
        """A server that stands below another one gives its own authority with it, which then is in the chain."""
        root = server.root
        server.root = below(clock, root, "the server's")
        asked = IntermediateRequest(DOMAIN, ec.generate_private_key(ec.SECP256R1()), DAY)
        server.csr = asked.csr
        server.chain = der(server.signed(asked.csr).certificate, server.root.certificate)
        signed = await server.upstream.sign(asked.csr, DAY)
        assert 2 == len(check_signed(asked, signed, clock.now(), HOUR).chain)

    async def test_tells_what_is_tainted(self, server, clock):
        """What the server taints is told by its authority ID, and what it names no more is revoked."""
        other = root_at(clock, "other")
        server.bundle.append(other.certificate)
        server.tainted = set(der(other.certificate))
        standing = await server.upstream.look()
        assert (None, True, 1) == (standing.signs, standing.revokes, len(standing.tainted))


class TestNotGood:
    @pytest.mark.parametrize(
        ("chain", "told"),
        [
            ([], "no intermediate"),
            ([b"nothing"], "no certificate"),
            ([b""], "no certificate"),
            ([b"x" * 100] * 1_000, "more than"),
        ],
        ids=["nothing", "garbage", "empty", "endless"],
    )
    async def test_chains(self, server, chain, told):
        """What is no chain of certificates, or a huge one, is refused before anything of it is looked at closer."""
        server.chain = chain
        with pytest.raises(UpstreamNotGood, match=told):
            await server.sign()

    async def test_another_key(self, server):
        """An authority for another key than the one that was asked for is refused."""
        server.chain = der(
            issue(server.root, OPEN, begins=server.clock.now(), ends=server.clock.now() + DAY).certificate
        )
        with pytest.raises(UpstreamNotGood, match="another key"):
            await server.sign()

    async def test_a_path_that_is_too_long(self, server):
        """A path length that is set has to be none: it is left open only where it is not set at all."""
        constraints = (type(GOOD["constraints"][0])(ca=True, path_length=3), True)
        asked = IntermediateRequest(DOMAIN, ec.generate_private_key(ec.SECP256R1()), DAY)
        server.csr = asked.csr
        server.chain = der(server.signed(asked.csr, constraints=constraints).certificate)
        with pytest.raises(UpstreamNotGood, match="path length"):
            check_signed(asked, await server.upstream.sign(asked.csr, DAY), server.clock.now(), HOUR)

    async def test_many_roots(self, server):
        """A bundle that would make every answer to every workload huge is refused."""
        server.bundle *= 101
        with pytest.raises(UpstreamNotGood, match="more than 100"):
            await server.sign()

    async def test_another_trust_domain(self, server):
        """The bundle of another trust domain is none of ours."""
        server.domain = "other.org"
        with pytest.raises(UpstreamUnavailable, match=r"other\.org"):
            await server.upstream.look()

    async def test_no_root(self, server):
        """A bundle without any root is refused."""
        server.bundle = []
        with pytest.raises(UpstreamUnavailable, match=r"no X\.509 authority"):
            await server.upstream.look()


class TestUnavailable:
    async def test_not_marked(self, server):
        """Where the server does not take us for a downstream, it is said how it would."""
        server.failing = Refused("the SPIRE server says: authorization denied for method …")
        with pytest.raises(UpstreamUnavailable, match="has to be marked: spire-server entry create -downstream"):
            await server.sign()

    @pytest.mark.parametrize(
        "nobody", [Unavailable("no agent is there"), NoIdentity("no identity issued"), NotFound("none")]
    )
    async def test_without_an_identity(self, server, nobody):
        """Without an identity no server is asked, and why there is none is told."""
        server.nobody = nobody
        for ask in (server.sign, server.upstream.look):
            with pytest.raises(UpstreamUnavailable) as caught:
                await ask()
            assert nobody.public in caught.value.public
        assert [] == server.asked


class Api:
    """A spire-agent's Workload API that gives these."""

    def __init__(self, *ids):
        self.ids = ids

    def __call__(self, _socket, **_options):
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        """Nothing is open."""

    async def fetch_x509_svids(self):
        return SimpleNamespace(svids=[SimpleNamespace(spiffe_id=each) for each in self.ids], bundles={})


class TestWorkloadApi:
    @pytest.mark.parametrize(
        ("ids", "wanted", "found"),
        [
            ([ONE], None, ONE),
            ([ONE, SpiffeId.parse("spiffe://other.org/one")], None, ONE),
            ([ONE, TWO], TWO, TWO),
            ([ONE, TWO], None, "several entries"),
            ([ONE], TWO, "no entry 'spiffe://example.org/two'"),
            ([SpiffeId.parse("spiffe://other.org/one")], None, "no entry of 'example.org'"),
        ],
    )
    async def test_whom_it_asks_by(self, monkeypatch, tmp_path, ids, wanted, found):
        """The one identity of the trust domain, or the one that is named; nothing is guessed."""
        monkeypatch.setattr(downstream_identities, "Client", Api(*ids))
        identity = OfWorkloadApi(tmp_path / "s", DOMAIN, wanted)
        if isinstance(found, str):
            with pytest.raises(NotFound, match=found):
                await identity.have()
        else:
            assert found == (await identity.have())[0].spiffe_id


class Node:
    """A node as it has joined, or not."""

    def __init__(self, *entries, joined=ONE, refused="", fault=""):
        self.spiffe_id = joined
        self.entries = {str(each.spiffe_id): each for each in entries}
        self.state = SimpleNamespace(spiffe_id=joined, refused=refused, fault=fault, remedy="evict it")
        self.bundle = Bundle(DOMAIN, ())
        self.vouching = SimpleNamespace(of_x509=lambda _svid: self.vouches)
        self.x509 = self
        self.fresh = self.vouches = True
        self.signed, self.started, self.closed, self.soon = [], 0, 0, 0

    async def start(self):
        self.started += 1

    async def run(self):
        import asyncio

        await asyncio.Event().wait()

    async def close(self):
        self.closed += 1

    def sync_soon(self):
        self.soon += 1

    def is_fresh(self, _svid):
        return self.fresh

    async def sign(self, entry):
        self.signed.append(entry)
        return SimpleNamespace(spiffe_id=entry.spiffe_id)


def entry(spiffe_id, *, downstream=False):
    return SimpleNamespace(spiffe_id=spiffe_id, downstream=downstream)


class TestNode:
    async def test_signs_when_it_is_due(self, clock):
        """It joins once, and has another SVID signed when the one that it has is due, or tainted, and not before."""
        node = Node(entry(ONE), entry(TWO))
        identity = OfNode(node, clock, DOMAIN, TWO)
        for fresh, vouches, signed in ((True, True, 1), (True, True, 1), (False, True, 2), (True, False, 3)):
            node.fresh, node.vouches = fresh, vouches
            assert TWO == (await identity.have())[0].spiffe_id
            assert signed == len(node.signed)
        await identity.close()
        assert (1, 1) == (node.started, node.closed)

    @pytest.mark.parametrize("entries", [[], [entry(ONE), entry(TWO)], [entry(ONE), entry(TWO, downstream=True)]])
    async def test_no_entry_to_ask_by(self, clock, entries):
        """Where there is no entry, or which is not said, it is told how one is registered, and looked for again soon. What the
        server says of marks is not gone by.
        """
        node = Node(*entries)
        identity = OfNode(node, clock, DOMAIN, None)
        with pytest.raises(NotFound, match=f"-downstream -parentID {ONE}"):
            await identity.have()
        assert 1 == node.soon
        await identity.close()

    @pytest.mark.parametrize(
        "node",
        [Node(joined=None, fault="no server"), Node(refused="banned", fault="it is banned")],
        ids=["away", "banned"],
    )
    async def test_is_none(self, clock, node):
        """One that has not joined, or is refused, says why, and what an operator does."""
        identity = OfNode(node, clock, DOMAIN, None)
        with pytest.raises(Unavailable, match=f"{node.state.fault}; evict it"):
            await identity.have()
        await identity.close()

    async def test_is_closed_unused(self, clock):
        """One that nobody has asked for joins nothing."""
        node = Node()
        await OfNode(node, clock, DOMAIN, None).close()
        assert (0, 0) == (node.started, node.closed)
