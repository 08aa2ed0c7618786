"""bundle.py: what is published of a trust domain's keys (SPIFFE_Trust_Domain_and_Bundle.md, X509-SVID.md 6)."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sojourn.errors import InvalidBundle, InvalidToken
from sojourn.jose.jws import PublicKey, SigningKey
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.bundle import Bundle, parse
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import parse_certificates

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HERE, THERE = TrustDomain("example.org"), TrustDomain("other.org")
EC_KEY, RSA_KEY = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)


def self_signed(key, digest=hashes.SHA256()):  # noqa: B008  # it is immutable
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    return (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), NOW, NOW + timedelta(hours=1)
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, digest)
    )


ROOTS = (self_signed(EC_KEY), self_signed(RSA_KEY))
KEYS = {"k1": PublicKey.from_key("k1", EC_KEY.public_key()), "k2": PublicKey.from_key("k2", RSA_KEY.public_key())}
BUNDLE = Bundle(HERE, ROOTS, KEYS, sequence=7, refresh_hint_seconds=300)
EMPTY = Bundle(HERE, ())
FULL = replace(BUNDLE, wit_authorities={"w1": PublicKey.from_key("w1", EC_KEY.public_key())})
ENTRY = {**KEYS["k1"].jwk, "use": "jwt-svid"}
ED25519 = base64.b64encode(self_signed(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.DER)).decode()
ENCODED = base64.b64encode(ROOTS[0].public_bytes(Encoding.DER)).decode()
PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def entries(use):
    return [key for key in BUNDLE.document()["keys"] if key["use"] == use]


class TestReading:
    def test_the_same_keys(self):
        """A bundle that was written and read has the same keys, whatever its numbers are; one with fewer has others."""
        read = parse(HERE, json.loads(json.dumps(BUNDLE.document())))
        assert read.same_keys(BUNDLE)
        assert BUNDLE.same_keys(replace(read, sequence=8, refresh_hint_seconds=1))
        assert not BUNDLE.same_keys(replace(BUNDLE, x509_authorities=ROOTS[:1]))
        assert not BUNDLE.same_keys(replace(BUNDLE, jwt_authorities={"k1": KEYS["k1"]}))
        assert not BUNDLE.same_keys(EMPTY)

    @pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())])
    def test_authorities_of_other_keys(self, key):
        """A certificate whose key is of a kind or curve that is not accepted is refused, and what it says of it counts not."""
        digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        der = self_signed(key, digest).public_bytes(Encoding.DER)
        jwk = {"kty": "EC", "use": "x509-svid", "x5c": [base64.b64encode(der).decode()]}
        with pytest.raises(InvalidBundle, match="neither RSA nor"):
            parse(HERE, {"keys": [jwk]})

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param("text", id="no-object"),
            pytest.param({**ENTRY, "kty": "OKP", "kid": "a"}, id="unknown-kind"),
            pytest.param({**ENTRY, "use": "sig", "kid": "a"}, id="unknown-use"),
            pytest.param({"kty": "EC", "use": "sig", "x5c": ["AA=="]}, id="certificate-of-unknown-use"),
            pytest.param({"kty": "EC", "use": "x509-svid"}, id="no-certificate"),
            pytest.param({"kty": "EC", "use": "x509-svid", "x5c": []}, id="no-certificate-in-the-list"),
        ],
    )
    def test_passes_over(self, other):
        """What is of an unknown kind or use is passed over, wherever it stands, and all around it is read."""
        document = FULL.document()
        for place in range(len(document["keys"]) + 1):
            changed = {**document, "keys": [*document["keys"][:place], other, *document["keys"][place:]]}
            assert document == parse(HERE, changed).document()

    def test_everything(self):
        """All that a document says is read: the keys by their use, sequence, refresh hint, and for which trust domain."""
        read = parse(THERE, FULL.document())
        assert (THERE, ROOTS, 7, 300) == (
            read.trust_domain,
            read.x509_authorities,
            read.sequence,
            read.refresh_hint_seconds,
        )
        assert (["k1", "k2"], ["w1"]) == (list(read.jwt_authorities), list(read.wit_authorities))

    @pytest.mark.parametrize("document", [None, [], "keys", {}, {"keys": None}, {"keys": {}}, {"keys": "k1"}])
    def test_no_key_set(self, document):
        """What is no JSON object with a list of keys is no bundle."""
        with pytest.raises(InvalidBundle, match="no list of keys"):
            parse(HERE, document)

    @pytest.mark.parametrize("name", ["spiffe_sequence", "spiffe_refresh_hint"])
    def test_numbers(self, name):
        """Sequence and refresh hint are whole numbers of 63 bits, and 0 where they are not said."""
        for value in (0, 1, 2**63 - 1):
            assert value == parse(HERE, {"keys": [], name: value}).document()[name]
        assert 0 == parse(HERE, {"keys": []}).document()[name]
        for value in (-1, 2**63, True, 1.0, "1", None, []):
            with pytest.raises(InvalidBundle, match=f"{name} is not a whole number"):
                parse(HERE, {"keys": [], name: value})

    @pytest.mark.parametrize(
        "x5c",
        [[7], "MIIB", {"0": "MIIB"}, ["!"], [""], ["AA=="], ["AA"], [f" {ENCODED}"], [f"{ENCODED}\n"], [[ENCODED]]],
    )
    def test_bad_certificates(self, x5c):
        """An X.509 entry whose certificate is not one, in base64 without anything else, is refused."""
        with pytest.raises(InvalidBundle, match="x5c"):
            parse(HERE, {"keys": [{"kty": "EC", "use": "x509-svid", "x5c": x5c}]})

    def test_same_key_id(self):
        """Two keys may not have one key id, also if they are of different uses."""
        for use in ("jwt-svid", "wit-svid"):
            with pytest.raises(InvalidBundle, match='two keys have the key id "k1"'):
                parse(HERE, {"keys": [ENTRY, {**ENTRY, "use": use}]})

    @pytest.mark.parametrize(
        "jwk",
        [
            pytest.param({**ENTRY, "x": "AA"}, id="jwt-key"),
            pytest.param({"kty": "EC", "use": "x509-svid", "x5c": ["AA=="]}, id="certificate"),
            pytest.param({"kty": "EC", "use": "x509-svid", "x5c": [ED25519]}, id="key-of-a-certificate"),
        ],
    )
    def test_details(self, jwk):
        """Why a key or certificate could not be read is in the error's detail, for the log."""
        with pytest.raises(InvalidBundle) as caught:
            parse(HERE, {"keys": [jwk]})
        cause = caught.value.__cause__
        assert caught.value.detail == (cause.detail if isinstance(cause, InvalidToken) else str(cause)) != ""


class TestX509:
    def test_der(self):
        """The DER authorities read back in their order."""
        expected = ROOTS
        assert expected == parse_certificates(BUNDLE.x509_der)

    def test_pem(self):
        """The PEM authorities read back in their order."""
        assert list(ROOTS) == x509.load_pem_x509_certificates(BUNDLE.x509_pem)

    def test_empty(self):
        """A bundle without authorities is written as nothing."""
        nothing = b""
        assert nothing == EMPTY.x509_der
        assert nothing == EMPTY.x509_pem


class TestJwks:
    def test_has_each_key(self):
        """The JWK Set has each JWT key with its id, and reads back as the same keys."""
        keys = json.loads(BUNDLE.jwks)["keys"]
        assert [dict(key.jwk) for key in KEYS.values()] == [dict(PublicKey.from_jwk(jwk).jwk) for jwk in keys]
        assert list(KEYS) == [jwk["kid"] for jwk in keys]

    def test_is_plain(self):
        """The JWK Set of the Workload API is keys only: no X.509 key, no `use`, no sequence."""
        document = json.loads(BUNDLE.jwks)
        expected = {"keys"}
        assert expected == set(document)
        assert not [jwk for jwk in document["keys"] if {"use", "x5c"} & set(jwk)]

    def test_has_no_private_member(self):
        """No private member of a key is published."""
        assert not [jwk for jwk in json.loads(BUNDLE.jwks)["keys"] if PRIVATE & set(jwk)]

    def test_empty(self):
        """A bundle without JWT keys is a JWK Set with an empty list."""
        expected = {"keys": []}
        assert expected == json.loads(EMPTY.jwks)

    def test_is_utf_8(self):
        """A key id beyond ASCII is written and read back."""
        kid = "sch\u00fcssel"
        bundle = Bundle(HERE, (), {kid: PublicKey.from_key(kid, EC_KEY.public_key())})
        assert kid == json.loads(bundle.jwks.decode("utf-8"))["keys"][0]["kid"]


class TestDocument:
    def test_is_json(self):
        """The document can be written as JSON."""
        document = BUNDLE.document()
        assert document == json.loads(json.dumps(document))

    def test_uses(self):
        """Every key says what it is for, in the standard's words, and there is one entry for each key."""
        expected = ["x509-svid", "x509-svid", "jwt-svid", "jwt-svid"]
        assert expected == [key["use"] for key in BUNDLE.document()["keys"]]

    def test_x509_has_one_certificate(self):
        """An X.509 entry has exactly one certificate, in base64 of the ordinary alphabet (X509-SVID.md 6.1)."""
        found = []
        for key in entries("x509-svid"):
            (text,) = key["x5c"]
            found.append(x509.load_der_x509_certificate(base64.b64decode(text, validate=True)))
        assert list(ROOTS) == found

    def test_x509_has_no_kid(self):
        """An X.509 entry has no key id (X509-SVID.md 6.1)."""
        assert not [key for key in entries("x509-svid") if "kid" in key]

    def test_x509_key_is_the_certificates(self):
        """An X.509 entry has the public key of its certificate, and nothing more."""
        for key, name in zip(entries("x509-svid"), ("k1", "k2"), strict=True):
            expected = {**KEYS[name].jwk, "use": "x509-svid", "x5c": key["x5c"]}
            del expected["kid"]
            assert expected == key

    def test_jwt_has_a_kid(self):
        """A JWT entry has its key id, and no certificate (JWT-SVID.md 6.1)."""
        assert [{**key.jwk, "use": "jwt-svid"} for key in KEYS.values()] == entries("jwt-svid")

    def test_has_no_private_member(self):
        """No private member of a key is in the document."""
        assert not [key for key in BUNDLE.document()["keys"] if PRIVATE & set(key)]

    def test_sequence_and_hint(self):
        """Sequence and refresh hint are integers."""
        document = BUNDLE.document()
        expected = (7, 300)
        assert expected == (document["spiffe_sequence"], document["spiffe_refresh_hint"])

    def test_sequence_and_hint_begin_at_zero(self):
        """A bundle of which nothing else is said has sequence 0 and no refresh hint."""
        document = EMPTY.document()
        expected = (0, 0)
        assert expected == (document["spiffe_sequence"], document["spiffe_refresh_hint"])

    def test_keys_are_there_if_there_are_none(self):
        """An empty bundle has the member keys: that is how it is said that nothing is trusted (4.1.3)."""
        expected = []
        assert expected == EMPTY.document()["keys"]


class TestTrust:
    @pytest.mark.parametrize("kid", ["k1", "k2"])
    def test_never_verifies_another_domain(self, kid):
        """A key that stands in the bundle of A alone verifies no token of B, under whatever id."""
        signing = SigningKey.from_private(kid, EC_KEY)
        svid = jwtsvid.issue(
            signing,
            SpiffeId.from_parts("other.org", "/web"),
            ["db"],
            issued_at=NOW,
            expires_at=NOW + timedelta(minutes=1),
        )
        bundles = {HERE: BUNDLE.jwt_authorities, THERE: {"k1": KEYS["k2"], "k2": KEYS["k2"]}}
        with pytest.raises(InvalidToken):
            jwtsvid.verify(svid.token, ["db"], bundles, NOW)
        with pytest.raises(InvalidToken):
            jwtsvid.verify(svid.token, ["db"], {HERE: BUNDLE.jwt_authorities}, NOW)

    def test_verifies_its_own(self):
        """A key in the bundle of A verifies a token of A."""
        signing = SigningKey.from_private("k1", EC_KEY)
        svid = jwtsvid.issue(
            signing,
            SpiffeId.from_parts("example.org", "/web"),
            ["db"],
            issued_at=NOW,
            expires_at=NOW + timedelta(minutes=1),
        )
        assert svid == jwtsvid.verify(svid.token, ["db"], {HERE: BUNDLE.jwt_authorities}, NOW)
