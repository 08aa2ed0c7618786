"""node_svids.py: what is signed is the entry's, for the node's key, and recorded with the node."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fakes.registrations import entry
from fakes.server_room import ServerRoom, agent_id, certificate_request
from sojourn.errors import AgentDenied, InvalidInput, LimitExceeded, NotFound
from sojourn.identity.custom_claims import JwtClaims
from sojourn.spiffe.x509svid import verify_chain

A, B = agent_id("a"), agent_id("b")


@pytest.fixture
def room(tmp_path: Path) -> ServerRoom:
    entries = [
        entry("/web", parent_id=A, x509_svid_ttl=600, jwt_svid_ttl=60, dns_names=("web.example.org",),
              jwt_claims=JwtClaims.parse({"tier": "one"})),
        entry("/db", parent_id=B),
    ]  # fmt: skip
    return ServerRoom(tmp_path, entries)


class TestX509:
    async def test_the_entry_says_all_but_the_key(self, room: ServerRoom) -> None:
        """SPIFFE ID, DNS names and life are the entry's, whatever the request asks for; the key is the request's."""
        await room.joined()
        key = ec.generate_private_key(ec.SECP256R1())
        _, chain = room.svids.sign_x509(room.node(), "entry-web", certificate_request(key, "spiffe://example.org/db"))
        bundle = room.authority.bundle
        now = room.clock.now()
        assert "/web" == verify_chain(chain, bundle.x509_authorities, bundle.trust_domain, now).path
        leaf = chain[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert ["web.example.org"] == names.get_values_for_type(x509.DNSName)
        assert 600 == (leaf.not_valid_after_utc - now).total_seconds()
        assert key.public_key() == leaf.public_key()

    async def test_it_is_recorded_with_its_node(self, room: ServerRoom) -> None:
        """The journal says for which node which serial number was signed."""
        await room.joined()
        _, chain = room.svids.sign_x509(room.node(), "entry-web", certificate_request())
        await room.audit.flush()
        (said,) = room.fields("x509_svid_issued")
        assert (str(A), "entry-web", f"{chain[0].serial_number:x}") == (said["node"], said["entry_id"], said["serial"])

    @pytest.mark.parametrize("wanted", ["entry-db", "entry-none", "../entry-web"])
    async def test_an_entry_of_others(self, room: ServerRoom, wanted: str) -> None:
        """An entry that is another node's and one that is not there are told alike."""
        await room.joined()
        with pytest.raises(NotFound, match="entry not found or not authorized"):
            room.svids.sign_x509(room.node(), wanted, certificate_request())
        with pytest.raises(NotFound, match="entry not found or not authorized"):
            room.svids.sign_jwt(room.node(), wanted, ["a"])

    @pytest.mark.parametrize(
        ("request_", "said"),
        [(b"", "missing CSR"), (b"no", "malformed CSR"), (certificate_request()[:-8], "malformed CSR")],
    )
    async def test_requests_that_are_none(self, room: ServerRoom, request_: bytes, said: str) -> None:
        """What is no request is told in SPIRE's words."""
        await room.joined()
        with pytest.raises(InvalidInput, match=said):
            room.svids.sign_x509(room.node(), "entry-web", request_)

    async def test_a_request_that_its_key_has_not_signed(self, room: ServerRoom) -> None:
        """Who cannot sign by a key gets no SVID for it."""
        await room.joined()
        request = bytearray(certificate_request())
        request[-1] ^= 1
        with pytest.raises(InvalidInput, match="CSR"):
            room.svids.sign_x509(room.node(), "entry-web", bytes(request))

    async def test_keys_that_are_too_small(self, room: ServerRoom) -> None:
        """A key of a kind that no SVID may have is refused."""
        await room.joined()
        small = rsa.generate_private_key(65537, 1024)
        with pytest.raises(InvalidInput, match="malformed CSR"):
            room.svids.sign_x509(room.node(), "entry-web", certificate_request(small))  # type: ignore[arg-type]


class TestJwt:
    async def test_it_is_the_entrys(self, room: ServerRoom) -> None:
        """Subject, life and claims are the entry's; the journal has it with the node."""
        await room.joined()
        svid = room.svids.sign_jwt(room.node(), "entry-web", ["https://a.example"])
        claims = svid.claims
        assert ("spiffe://example.org/web", "one", 60) == (claims["sub"], claims["tier"], claims["exp"] - claims["iat"])
        await room.audit.flush()
        (said,) = room.fields("jwt_svid_issued")
        assert (str(A), claims["jti"], ["https://a.example"]) == (said["node"], said["jti"], said["audience"])

    async def test_a_journal_without_room(self, room: ServerRoom) -> None:
        """What may not be recorded is not signed."""
        await room.joined()

        def full(_: object) -> None:
            raise LimitExceeded("no")

        room.svids._recordable = full
        with pytest.raises(LimitExceeded):
            room.svids.sign_jwt(room.node(), "entry-web", ["a"])


async def test_a_ban_counts_at_once(room: ServerRoom) -> None:
    """A call that began before its node was banned has nothing more signed."""
    await room.joined()
    node = room.node()
    await room.nodes.ban(A, {})
    with pytest.raises(AgentDenied):
        room.svids.sign_x509(node, "entry-web", certificate_request())
    with pytest.raises(AgentDenied):
        room.svids.sign_jwt(node, "entry-web", ["a"])
