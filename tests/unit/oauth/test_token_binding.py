"""To what tokens are bound, and proofs by the keys that tasks have in the agent. One fault a case."""

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509
from fakes.authorities import authority_in, forging
from fakes.clock import FakeClock
from fakes.revocations import FakeRevocationStore
from fakes.task_room import ISSUER, Room
from fakes.task_types import TICKETS, TRIAGE, WIKI, task_type
from sojourn.errors import InvalidInput, InvalidSvid, InvalidToken, SojournError, TaskOver
from sojourn.errors.oauth import InvalidProof, NonceNeeded
from sojourn.identity.issued_svids import X509, IssuedSvid
from sojourn.identity.revocations import Revocations
from sojourn.jose.jws import SigningKey
from sojourn.oauth.token_binding import TokenBindings
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import DER
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasktoken import dpop, tokens
from sojourn.tasktoken.dpop_replays import Replays
from sojourn.tasktoken.grants import Authority, Grant
from sojourn.tasktoken.sender_constraint import X5T, Proven, thumbprint_of

URL = f"{TICKETS}/tickets/42"
KEY = SigningKey.generate("client")


class ProvingRoom(Room):
    """A room with a real authority, and proofs of possession."""

    def __init__(self, clock, folder):
        super().__init__(clock, {"triage": task_type()})
        self.folder = folder
        self.authority = authority_in(folder / "keys", clock)
        self.revocations = Revocations(FakeRevocationStore(), self.authority, clock, self.alarms)
        self.replays = Replays(clock.now, clock.boot)
        self.proving = TokenBindings(self.engine, self.authority, self.revocations, self.replays, clock)
        clock.advance(120)  # what was before this memory is no matter any more

    def svid(self, spiffe_id=TRIAGE, ttl=timedelta(hours=1)):
        return self.authority.issue_x509(SpiffeId.parse(spiffe_id), ttl)

    def proof(self, **changes):
        return dpop.make(**{"key": KEY, "method": "POST", "url": f"{ISSUER}/token", "now": self.clock.now(), **changes})

    async def bound(self, task, resource=TICKETS):
        return (await self.engine.token(task, resource, (), agent_key=True)).token


@pytest.fixture
async def room(tmp_path):
    async with ProvingRoom(FakeClock(), tmp_path).running() as running:
        yield running


class TestByProof:
    async def test_good(self, room, task):
        """The token is bound to the proof's key."""
        binding = room.proving.by_proof(room.proof(), 1000)
        token = await room.engine.token(task, TICKETS, (), binding=binding)
        assert {"jkt": KEY.public.thumbprint} == token.claims["cnf"]

    async def test_once(self, room):
        """A proof is used up by its first use."""
        text = room.proof()
        room.proving.by_proof(text, 1000)
        with pytest.raises(InvalidProof, match="used before"):
            room.proving.by_proof(text, 1000)

    @pytest.mark.parametrize(
        "changes",
        [{"method": "GET"}, {"url": f"{ISSUER}/token/"}, {"url": f"{ISSUER}/Token"}, {"url": URL}],
        ids=["method", "slash", "case", "another"],
    )
    async def test_for_something_else(self, room, changes):
        """Only a proof for POST to the token endpoint is taken."""
        with pytest.raises(InvalidProof):
            room.proving.by_proof(room.proof(**changes), 1000)

    async def test_after_a_step_of_the_clock(self, room):
        """After the wall clock was set back a proof needs a nonce, and with it is taken."""
        room.clock.advance(3600)
        room.proving.by_proof(room.proof(), 1000)
        room.clock.step_wall(-1800)
        with pytest.raises(NonceNeeded) as caught:
            room.proving.by_proof(room.proof(), 1000)
        assert room.proving.by_proof(room.proof(nonce=caught.value.nonce), 1000)

    async def test_after_a_start(self, room):
        """What may be from before this agent ran needs a nonce."""
        room.proving = TokenBindings(
            room.engine, room.authority, room.revocations, Replays(room.clock.now, room.clock.boot), room.clock
        )
        with pytest.raises(NonceNeeded) as caught:
            room.proving.by_proof(room.proof(), 1000)
        assert room.proving.by_proof(room.proof(nonce=caught.value.nonce), 1000)


class TestByCertificate:
    async def test_good(self, room, task):
        """The token is bound to the leaf, and ends with it at the latest."""
        svid = room.svid(ttl=timedelta(seconds=30))
        for der in (svid.leaf.public_bytes(DER), svid.chain_der):
            binding = room.proving.by_certificate(task, der)
            assert (X5T, thumbprint_of(svid.leaf.public_bytes(DER))) == (binding.kind, binding.thumbprint)
        token = await room.engine.token(task, TICKETS, (), binding=binding)
        assert svid.not_after.timestamp() == token.claims["exp"] < room.clock.now().timestamp() + 60

    async def test_after_the_intermediate_has_changed(self, room, task):
        """A leaf of an intermediate that signs no more is good as long as it lives."""
        svid, before = room.svid(ttl=timedelta(hours=13)), room.authority.issuer
        room.clock.advance(12 * 3600 + 60)
        room.authority.maintain()
        assert before != room.authority.issuer
        assert room.proving.by_certificate(await room.begin(), svid.leaf.public_bytes(DER))

    async def test_of_another_workload(self, room, task):
        """The certificate of another workload of the trust domain is refused."""
        with pytest.raises(InvalidSvid, match="another workload"):
            room.proving.by_certificate(task, room.svid("spiffe://example.org/web").chain_der)

    async def test_revoked(self, room, task):
        """A revoked certificate is refused."""
        svid = room.svid()
        await room.revocations.revoke(
            [IssuedSvid(X509, svid.serial, TRIAGE, "e", int(svid.not_after.timestamp()), "i", "r")]
        )
        with pytest.raises(InvalidSvid, match="revoked"):
            room.proving.by_certificate(task, svid.chain_der)

    async def test_expired(self, room, task):
        """A certificate that has ended is refused."""
        svid = room.svid(ttl=timedelta(seconds=30))
        room.clock.advance(31)
        with pytest.raises(InvalidSvid):
            room.proving.by_certificate(await room.begin(), svid.chain_der)

    async def test_of_another_authority(self, room, task):
        """A certificate that says the right ID, of an authority that is not ours, is refused, its chain with it."""
        for domain in ("example.org", "other.example"):
            other = authority_in(room.folder / domain, room.clock, trust_domain=TrustDomain(domain))
            with forging():
                svid = other.issue_x509(SpiffeId.parse(TRIAGE), timedelta(hours=1))
            for der in (svid.chain_der, svid.chain_der + other.root.public_bytes(DER)):
                with pytest.raises(InvalidSvid):
                    room.proving.by_certificate(task, der)

    @pytest.mark.parametrize("der", [b"", b"x", b"0\x03abc", b"0\x84\xff\xff\xff\xff"])
    async def test_what_is_no_certificate(self, room, task, der):
        """What cannot be parsed is refused, and nothing else escapes."""
        with pytest.raises(InvalidSvid):
            room.proving.by_certificate(task, der)

    async def test_an_authority_is_no_leaf(self, room, task):
        """The certificates of the authority itself are refused."""
        for certificate in (room.authority.root, room.authority.issuer):
            assert isinstance(certificate, x509.Certificate)
            with pytest.raises(InvalidSvid):
                room.proving.by_certificate(task, certificate.public_bytes(DER))


class TestProve:
    async def test_good(self, room, task):
        """A proof is for the request and the token, by the key that the token is bound to."""
        token = await room.bound(task)
        text = room.proving.prove(task, "GET", f"{URL}?a=1#b", token, "n0nce")
        proof = dpop.read(text, method="GET", url=URL, now=room.clock.now(), token=token)
        assert "n0nce" == proof.nonce
        assert tokens.verify(
            token,
            keys=room.engine.keys.published,
            issuer=ISSUER,
            audience=TICKETS,
            now=room.clock.now(),
            proven=Proven(jkt=proof.jkt),
        )

    async def test_each_is_new(self, room, task):
        """Each proof that a task's key makes is another one."""
        token = await room.bound(task)
        found = {room.proving.prove(task, "GET", URL, token, "") for _ in range(5)}
        now = room.clock.now()
        assert 5 == len({dpop.read(text, method="GET", url=URL, now=now, token=token).jti for text in found})

    async def test_every_token_of_the_task(self, room, task):
        """All tokens of the task that are bound to its key can be proved, at each of its resources."""
        for resource in (TICKETS, WIKI):
            assert room.proving.prove(task, "GET", f"{resource}/x", await room.bound(task, resource), "")

    async def test_tokens_that_are_not_its_own(self, room, task):
        """A token of another task, a bearer token, one of a client's key and none at all are refused."""
        other = await room.begin()
        await room.bound(task)
        theirs = await room.bound(other)
        bearer = (await room.engine.token(task, TICKETS, ())).token
        clients = (await room.engine.token(task, TICKETS, (), binding=room.proving.by_proof(room.proof(), 1000))).token
        for text in (theirs, bearer, clients, "", "x", room.proof()):
            with pytest.raises(InvalidInput):
                room.proving.prove(task, "GET", URL, text, "")

    async def test_a_task_without_a_key(self, room, task):
        """A task that has no key makes none for this."""
        with pytest.raises(InvalidToken):
            room.proving.prove(task, "GET", URL, (await room.engine.token(task, TICKETS, ())).token, "")
        assert task.key is None

    async def test_a_token_that_is_over(self, room, task):
        """A token from before a change of the task, one that has expired, and one of a task that has ended."""
        old = await room.bound(task)
        await TaskChanges(room.engine).narrow(task, Authority((Grant(TICKETS, ("ticket:read",)),)), "holder")
        with pytest.raises(TaskOver, match="changed"):
            room.proving.prove(task, "GET", URL, old, "")
        token = await room.bound(task)
        room.clock.advance(60)
        with pytest.raises(InvalidToken, match="expired"):
            room.proving.prove(task, "GET", URL, token, "")
        token = await room.bound(task)
        room.engine.end(task, "revoked", "because")
        with pytest.raises(TaskOver, match="because"):
            room.proving.prove(task, "GET", URL, token, "")

    @pytest.mark.parametrize("method", ["", "GET ", "G\nET", "G:T", "GÉT", "A" * 33])
    async def test_what_is_no_method(self, room, task, method):
        """What cannot be the method of an HTTP request is refused."""
        with pytest.raises(InvalidInput, match="method"):
            room.proving.prove(task, method, URL, await room.bound(task), "")

    @pytest.mark.parametrize(
        "url",
        [
            *("", "/tickets", "ftp://a/b", "https://", "https:///x", "javascript:x", "https://a b/"),
            *("https://a/\n", "https://é/", "http://[::1", "https://user@a/", "https://a/" + "x" * 9000),
        ],
    )
    async def test_what_is_no_url(self, room, task, url):
        """What is no http or https URL is refused."""
        with pytest.raises(InvalidInput, match="url"):
            room.proving.prove(task, "GET", url, await room.bound(task), "")

    @pytest.mark.parametrize("nonce", ["a b", 'a"b', "a\\b", "a\n", "é", "a" * 257])
    async def test_what_is_no_nonce(self, room, task, nonce):
        """What no service may send as a nonce is refused."""
        with pytest.raises(InvalidInput, match="nonce"):
            room.proving.prove(task, "GET", URL, await room.bound(task), nonce)

    async def test_over_a_change_of_keys(self, room, task):
        """A token by a key that signs no more is proved as long as it is good."""
        alarms, keys = room.alarms, room.engine.keys
        room.clock.advance(86_400 - 60)
        alarms.ring_due()
        task = await room.begin()
        room.clock.advance(59)
        token, before = await room.bound(task), keys.active
        room.clock.advance(1)
        alarms.ring_due()
        assert before is not keys.active
        assert room.proving.prove(task, "GET", URL, token, "")


async def test_fifty_at_once(room):
    """Of fifty who come with the same proof one gets its binding."""
    text, found = room.proof(), []

    async def one():
        try:
            found.append(room.proving.by_proof(text, 1000))
        except SojournError:
            return

    await asyncio.gather(*(one() for _ in range(50)))
    assert 1 == len(found)
