"""What the Workload API sends is checked before it is believed."""

import json
from collections.abc import Callable

import pytest
from fakes.ca import FakeCa
from fakes.fake_agent import x509_response
from fakes.task_feed import signing_key
from hypothesis import given
from hypothesis import strategies as st
from sojourn._pb import workload_pb2
from sojourn.errors import InvalidInput, InvalidToken, SojournError
from sojourn.workloadapi import messages

Spoil = Callable[[workload_pb2.X509SVIDResponse, FakeCa], None]


def no_svid(message: workload_pb2.X509SVIDResponse, ca: FakeCa) -> None:
    del message.svids[:]


def no_chain(message: workload_pb2.X509SVIDResponse, ca: FakeCa) -> None:
    message.svids[0].x509_svid = b""


def other_id(message: workload_pb2.X509SVIDResponse, ca: FakeCa) -> None:
    message.svids[0].spiffe_id = "spiffe://example.org/db"


def other_key(message: workload_pb2.X509SVIDResponse, ca: FakeCa) -> None:
    message.svids[0].x509_svid_key = ca.svid().key_der


def no_key(message: workload_pb2.X509SVIDResponse, ca: FakeCa) -> None:
    message.svids[0].x509_svid_key = b"secret"


def authority_as_leaf(message: workload_pb2.X509SVIDResponse, ca: FakeCa) -> None:
    message.svids[0].x509_svid = ca.root_der


def bad_leaf(message: workload_pb2.X509SVIDResponse, ca: FakeCa) -> None:
    message.CopyFrom(x509_response(ca, ca.svid(usage=False)))


def bad_bundle(message: workload_pb2.X509SVIDResponse, ca: FakeCa) -> None:
    message.svids[0].bundle = ca.root_der[:-1]


def bad_list(message: workload_pb2.X509SVIDResponse, ca: FakeCa) -> None:
    message.crl.append(b"x")


def bundle_of_a_workload(message: workload_pb2.X509SVIDResponse, ca: FakeCa) -> None:
    message.federated_bundles["spiffe://other.example/x"] = ca.root_der


def bundle_without_scheme(message: workload_pb2.X509SVIDResponse, ca: FakeCa) -> None:
    message.federated_bundles["other.example"] = ca.root_der


class TestX509:
    @pytest.mark.parametrize(
        "spoil",
        [
            no_svid,
            no_chain,
            other_id,
            other_key,
            no_key,
            authority_as_leaf,
            bad_leaf,
            bad_bundle,
            bad_list,
            bundle_of_a_workload,
            bundle_without_scheme,
        ],
    )
    def test_faults(self, ca: FakeCa, spoil: Spoil) -> None:
        """Each fault spoils the whole answer, and no key is in the error."""
        message = x509_response(ca, ca.svid())
        spoil(message, ca)
        with pytest.raises(InvalidInput) as caught:
            messages.x509_context(message)
        assert "secret" not in caught.value.public + caught.value.detail

    def test_own_bundle_wins(self, ca: FakeCa, other_ca: FakeCa) -> None:
        """A federated bundle for the SVID's own trust domain does not replace its own."""
        message = x509_response(ca, ca.svid())
        message.federated_bundles["spiffe://example.org"] = other_ca.root_der
        expected = {ca.trust_domain: (ca.root,)}
        assert expected == messages.x509_context(message).bundles

    def test_hides_the_key(self, ca: FakeCa) -> None:
        """The repr of an SVID with hint hides its key."""
        svid = messages.x509_context(x509_response(ca, ca.svid(), hint="h")).default
        assert "key" not in repr(svid)

    def test_revoked(self, ca: FakeCa) -> None:
        """Revocation lists are kept as issuer and serial number."""
        svid = ca.svid()
        context = messages.x509_context(x509_response(ca, svid, crl=(ca.crl(svid),)))
        expected = {(svid.leaf.issuer.public_bytes(), svid.leaf.serial_number)}
        assert expected == context.revoked

    @given(st.binary(), st.binary(), st.text(), st.binary(), st.dictionaries(st.text(), st.binary(), max_size=2))
    def test_ours_or_nothing(
        self, chain: bytes, key: bytes, spiffe_id: str, bundle: bytes, federated: dict[str, bytes]
    ) -> None:
        """Whatever the bytes, only our errors escape."""
        svid = workload_pb2.X509SVID(spiffe_id=spiffe_id, x509_svid=chain, x509_svid_key=key, bundle=bundle)
        with pytest.raises(SojournError):
            messages.x509_context(workload_pb2.X509SVIDResponse(svids=[svid], federated_bundles=federated))


class TestKeys:
    def test_use(self) -> None:
        """Of a SPIFFE bundle document the JWT keys are taken, and of a plain JWK Set all that we can use."""
        plain = dict(signing_key("plain").public.jwk)
        keys = [
            plain,
            {**plain, "kid": "jwt", "use": "jwt-svid"},
            {**plain, "kid": "x509", "use": "x509-svid"},
            {**plain, "kid": "private", "d": "AA"},
            {key: value for key, value in plain.items() if key != "kid"},
        ]
        expected = {"plain", "jwt"}
        assert expected == set(messages.jwk_set(json.dumps({"keys": keys}).encode()))

    @pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [1]}', b"\xff", b"[" * 100_000])
    def test_not_a_set(self, document: bytes) -> None:
        """What is no JWK Set is refused."""
        with pytest.raises(InvalidToken):
            messages.jwk_set(document)

    @given(st.binary())
    def test_ours_or_nothing(self, document: bytes) -> None:
        """Whatever the bytes, only our error escapes."""
        with pytest.raises(InvalidToken):
            messages.jwk_set(document)


def test_jwt_without_end(ca: FakeCa) -> None:
    """A JWT-SVID that never expires is refused."""
    token = signing_key().sign({"sub": "spiffe://example.org/web"}, typ="JWT")
    with pytest.raises(InvalidToken, match="never expires"):
        messages.jwt_svid(workload_pb2.JWTSVID(spiffe_id="spiffe://example.org/web", svid=token))
