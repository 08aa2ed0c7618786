"""oauth/client_auth.py: what an authenticated client has shown, and what of it still holds."""

from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.granting_room import ISSUER, KEY, STORE_ID, TRIAGE_ID, WEB_ID, Room
from fakes.registrations import entry
from sojourn.errors.oauth import InvalidClient
from sojourn.identity.issued_svids import JWT, X509
from sojourn.jose.jws import parse_unverified
from sojourn.oauth.assertion_ids import Assertion
from sojourn.oauth.client_auth import (
    ASSERTION,
    CERTIFICATE,
    SOCKET,
    ClientCredentials,
    Clients,
    ClientSender,
    ShownSvid,
)
from sojourn.oauth.token_query import TokenQuery
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.jwtsvid import issue


@pytest.fixture
async def room(tmp_path):
    room = Room(tmp_path / "keys")
    yield room
    room.close()


@pytest.fixture
def clients(room):
    return Clients(room.identities, room.used, ISSUER, room.clock)


def jti_of(token):
    return parse_unverified(token).unverified_claims["jti"]


class TestShown:
    """A client has with it what it has shown, so that a task that is begun by that ends with it."""

    async def test_at_the_socket(self, room, clients):
        """A caller that asserts nothing has shown nothing: the kernel says who it is."""
        client = await clients.authenticate(ClientSender(room.peer), ClientCredentials())
        assert (SOCKET, None, None, (TRIAGE_ID,)) == (client.method, client.svid, client.assertion, client.identities)

    @pytest.mark.parametrize("at_socket", [True, False])
    async def test_an_assertion(self, room, clients, at_socket):
        """A client that authenticates by a JWT-SVID has shown that one, at the socket too, and has used it up."""
        text = room.subject(TRIAGE_ID)
        sender = ClientSender(room.peer if at_socket else None)
        client = await clients.authenticate(sender, ClientCredentials(unverified_assertion=text))
        svid = clients.read_assertion(text, "it")
        assert (ASSERTION, at_socket) == (client.method, client.peer is not None)
        assert ShownSvid(JWT, jti_of(text), svid.expires_at, TRIAGE_ID) == client.svid
        assert Assertion.of(svid) == client.assertion
        with pytest.raises(Exception, match="used"):
            await clients.claim([client.assertion])

    async def test_an_assertion_of_another_trust_domain(self, room, clients):
        """An assertion is of our own keys, also where its trust domain is known and an entry federates with it: a
        restore replaces our keys, and forgets which assertions were used.
        """
        other, now = TrustDomain("other.org"), room.clock.now()
        await room.identities._foreign.put(Bundle(other, (), {KEY.kid: KEY.public}))
        spiffe_id = SpiffeId.parse("spiffe://other.org/web")
        text = issue(KEY, spiffe_id, ISSUER, issued_at=now, expires_at=now + timedelta(minutes=5)).token
        federating = [entry(federates_with=(other,))]
        assert spiffe_id == room.identities.verify_jwt_svid(text, [ISSUER], federating).spiffe_id
        with pytest.raises(InvalidClient, match="no keys found for trust domain"):
            await clients.authenticate(ClientSender(room.peer), ClientCredentials(unverified_assertion=text))

    async def test_a_certificate(self, room, clients):
        """A client that authenticates by the certificate of its connection has shown that one."""
        sender = room.shows(WEB_ID)
        client = await clients.authenticate(sender, ClientCredentials())
        shown = ShownSvid(X509, sender.certificate.serial, sender.certificate.not_after, WEB_ID)
        assert (CERTIFICATE, shown, sender.certificate) == (client.method, client.svid, client.certificate)

    async def test_both(self, room, clients):
        """A client with an assertion on a connection with a certificate has both, if both are one workload's."""
        text = room.subject(WEB_ID)
        client = await clients.authenticate(room.shows(WEB_ID), ClientCredentials(unverified_assertion=text))
        assert (ASSERTION, WEB_ID) == (client.method, client.certificate.spiffe_id)
        other = ClientCredentials(unverified_assertion=room.subject(STORE_ID))
        with pytest.raises(InvalidClient, match="another workload's"):
            await clients.authenticate(room.shows(WEB_ID), other)


class TestStill:
    async def test_what_is_registered_yet(self, room, clients):
        """Of a client's registrations those are left that are what they were; without any it is no client."""
        client = await clients.authenticate(ClientSender(room.peer), ClientCredentials())
        assert client is clients.check_still(client, [])
        gone = entry("/gone", "unix:uid:1000")
        both = replace(client, entries=(*client.entries, gone))
        assert client.entries == clients.check_still(both, []).entries
        with pytest.raises(InvalidClient, match="registration has changed"):
            clients.check_still(replace(client, entries=(gone,)), [])
        changed = replace(client.entries[0], revision=client.entries[0].revision + 1)
        with pytest.raises(InvalidClient, match="registration has changed"):
            clients.check_still(replace(client, entries=(changed,)), [])


class TestAssertionIds:
    def svid(self, clients, text, **claims):
        svid = clients.read_assertion(text, "it")
        return replace(svid, claims=type(svid.claims)({**svid.claims, **claims}))

    async def test_by_its_id(self, room, clients):
        """Two texts with one `jti` of one issuer are one assertion, and with another `jti` another."""
        one, other = room.subject(WEB_ID), room.subject(WEB_ID, ttl=timedelta(minutes=4))
        same = Assertion.of(self.svid(clients, one, jti="a")).digest
        assert same == Assertion.of(self.svid(clients, other, jti="a")).digest
        assert same != Assertion.of(self.svid(clients, one, jti="b")).digest
        assert same != Assertion.of(self.svid(clients, one, jti="a", iss="https://other.example")).digest

    @pytest.mark.parametrize("jti", ["", None, 1])
    async def test_by_its_text(self, room, clients, jti):
        """One without a `jti` is known by its text."""
        one, other = room.subject(WEB_ID), room.subject(WEB_ID, ttl=timedelta(minutes=4))
        known = [Assertion.of(self.svid(clients, text, jti=jti)).digest for text in (one, one, other)]
        assert [True, False] == [known[0] == each for each in known[1:]]


def test_a_query():
    """What is asked about is the token of the form, with the hint if there is one."""
    assert TokenQuery("t", "task") == TokenQuery.of({"token": "t", "token_type_hint": "task"})
    assert TokenQuery("t", "") == TokenQuery.of({"token": "t"})
