"""What the key process builds, and what it does not: with keys in memory in the place of a token."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.token_keys import FakeKeys
from sojourn.authority import crl
from sojourn.authority.token.building import Builder, encoded
from sojourn.authority.token.places import Pkcs11Place
from sojourn.authority.token.settings import TokenSettings
from sojourn.authority.x509_profile import TEST_NONCE_BYTES, Signer, check_test, issuer_name, self_sign
from sojourn.errors import FailedPrecondition, InvalidInput, LimitExceeded
from sojourn.limits import ROOT_LISTS_AN_HOUR, ROOT_SIGNATURES_AN_HOUR, ROOT_TESTS_AN_HOUR
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import check_authority

DOMAIN, OTHER = TrustDomain("example.org"), TrustDomain("other.example")
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
DAY = 86_400
SETTINGS = TokenSettings(
    Pkcs11Place("/lib/module.so", "token", "/pin"), DOMAIN, "n1", "ec-p256", timedelta(days=3650), timedelta(days=1)
)
LABEL = "sojourn/example.org/n1/root/1"
KEY = ec.generate_private_key(ec.SECP256R1())


class Place:
    """A builder, its keys, and time that a test moves."""

    def __init__(self, **changes):
        self.keys, self.at = FakeKeys(), 0.0
        settings = SETTINGS if not changes else TokenSettings(**{**SETTINGS.__dict__, **changes})
        self.builder = Builder(self.keys, settings, lambda: NOW + timedelta(seconds=self.at), lambda: self.at)

    def made(self, number=1):
        """A root, and its key's label."""
        return self.builder.make(number, self.builder.create(number))

    def root(self):
        return encoded(self.made()[0])


@pytest.fixture
def place():
    return Place()


def public(key=KEY):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def draft(*entries, now=NOW):
    """A list as the agent asks for it: of serial numbers, with the name of the intermediate that signed each."""
    builder = crl.indirect_list([(serial, NOW, name) for serial, name in entries], now)
    signed = builder.issuer_name(x509.Name([])).sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.DER)


@pytest.mark.parametrize(("key_type", "size"), [("ec-p256", 256), ("ec-p384", 384)])
def test_root(key_type, size):
    """A root is of the trust domain, and of the key type and for the life that were configured."""
    root, label = Place(key_type=key_type).made()
    check_authority(root, DOMAIN)
    assert (LABEL, size) == (label, root.public_key().key_size)
    assert NOW + timedelta(days=3650) == root.not_valid_after_utc
    assert 1 == root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    root.verify_directly_issued_by(root)


def test_made_once(place):
    """A key that is there is used again, whatever has become of its certificate; none is made out of turn."""
    first = place.made()[0]
    assert first.public_key() == place.made()[0].public_key()
    assert (2, [LABEL]) == (place.builder.next_number(), list(place.keys.kept))
    for number in (3, 0, -1, 10**9):
        with pytest.raises(InvalidInput):
            place.made(number)
    with pytest.raises(FailedPrecondition, match="no key"):
        place.builder.make(2, "")
    assert [LABEL] == list(place.keys.kept)


def test_intermediate(place):
    """An intermediate is for the key that was given, below the root, with a path length of 0, and lives as asked."""
    root = place.root()
    signed = place.builder.sign(root, LABEL, public(), 3600)
    check_authority(signed, DOMAIN)
    signed.verify_directly_issued_by(x509.load_der_x509_certificate(root))
    assert (KEY.public_key(), NOW + timedelta(hours=1)) == (signed.public_key(), signed.not_valid_after_utc)
    assert 0 == signed.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length


@pytest.mark.parametrize("ttl", [0, -1, DAY + 1, 10**12])
def test_life(place, ttl):
    """None lives longer than was configured."""
    with pytest.raises(InvalidInput):
        place.builder.sign(place.root(), LABEL, public(), ttl)


@pytest.mark.parametrize(
    "key",
    [b"", b"\x30\x00", public(rsa.generate_private_key(65537, 2048)), public(ec.generate_private_key(ec.SECP256K1()))],
    ids=["none", "cut", "rsa", "curve"],
)
def test_other_keys(place, key):
    """Only P-256 and P-384 keys are signed."""
    with pytest.raises(InvalidInput):
        place.builder.sign(place.root(), LABEL, key, 60)


class TestRoots:
    """The root that is named must be one of this trust domain, by that very key."""

    @pytest.mark.parametrize(
        "label", ["", "sojourn/example.org/n2/root/1", LABEL + "/2", "sojourn/example.org/n1/root/"]
    )
    def test_label(self, place, label):
        """A key with another label is not used, whatever it is."""
        place.keys.kept[label] = KEY
        with pytest.raises(InvalidInput):
            place.builder.sign(place.root(), label, public(), 60)

    def test_other_certificates(self, place):
        """No key is used for a certificate of another key, another trust domain, or that it has not signed itself."""
        place.root()
        key, ends = place.keys.kept[LABEL], NOW + timedelta(days=9)
        foreign = self_sign(OTHER, key, NOW, ends)
        stranger = self_sign(DOMAIN, KEY, NOW, ends)
        signer = Signer(stranger, KEY)
        below = signer.sign_authority(DOMAIN, key.public_key(), NOW, ends)
        for certificate, error in ((foreign, InvalidInput), (stranger, FailedPrecondition), (below, InvalidInput)):
            with pytest.raises(error):
                place.builder.sign(certificate.public_bytes(Encoding.DER), LABEL, public(), 60)
        with pytest.raises(InvalidInput):
            place.builder.sign(b"junk", LABEL, public(), 60)

    def test_gone(self, place):
        """A root whose key is gone from the token is told as that, and none is made in its place."""
        root = place.root()
        place.keys.kept.clear()
        with pytest.raises(FailedPrecondition, match="has no key"):
            place.builder.sign(root, LABEL, public(), 60)
        assert {} == place.keys.kept


class TestLists:
    """CRLs in a root's name."""

    NAME = issuer_name(DOMAIN, bytes(20))

    def test_built_anew(self, place):
        """A list has what the draft names, and times, number and issuer of the key process's own."""
        root = place.root()
        listed = place.builder.list(root, LABEL, draft((5, self.NAME), (6, self.NAME), now=NOW + timedelta(days=900)))
        certificate = x509.load_der_x509_certificate(root)
        assert listed.is_signature_valid(certificate.public_key())
        assert (certificate.subject, NOW) == (listed.issuer, listed.last_update_utc)
        assert listed.next_update_utc - NOW == crl.CRL_LIFE
        assert {5, 6} == {each.serial_number for each in listed}
        assert listed.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value.indirect_crl

    @pytest.mark.parametrize("name", [issuer_name(OTHER, bytes(20)), x509.Name([])], ids=["other", "empty"])
    def test_of_others(self, place, name):
        """It names no leaves of others."""
        with pytest.raises(InvalidInput):
            place.builder.list(place.root(), LABEL, draft((5, name)))

    @pytest.mark.parametrize("content", [b"", b"junk", bytes(100)])
    def test_no_draft(self, place, content):
        """What is no list is refused."""
        with pytest.raises(InvalidInput):
            place.builder.list(place.root(), LABEL, content)

    def test_bare_entries(self, place):
        """An entry that does not say who signed is refused: it would be of the root itself."""
        entry = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(NOW).build()
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(x509.Name([]))
            .last_update(NOW)
            .next_update(NOW + timedelta(days=1))
            .add_revoked_certificate(entry)
            .sign(KEY, hashes.SHA256())
        )
        with pytest.raises(InvalidInput):
            place.builder.list(place.root(), LABEL, made.public_bytes(Encoding.DER))


class TestRate:
    """Roots sign so often in an hour, and no more."""

    def test_intermediates(self, place):
        """After twenty there is a pause, until the first of them is an hour ago."""
        root = place.root()
        for _ in range(ROOT_SIGNATURES_AN_HOUR - 1):
            place.builder.sign(root, LABEL, public(), 60)
            place.at += 1
        with pytest.raises(LimitExceeded, match=r"in \d+ s"):
            place.builder.sign(root, LABEL, public(), 60)
        place.at = 3601
        place.builder.sign(root, LABEL, public(), 60)

    def test_lists_leave_room(self, place):
        """Lists take a part of it: however many are asked for, intermediates are signed."""
        root = place.root()
        for _ in range(ROOT_LISTS_AN_HOUR):
            place.builder.list(root, LABEL, draft())
        with pytest.raises(LimitExceeded):
            place.builder.list(root, LABEL, draft())
        place.builder.sign(root, LABEL, public(), 60)

    def test_no_key_beyond(self, place):
        """No key is made that could not have its certificate."""
        root = place.root()
        for _ in range(ROOT_SIGNATURES_AN_HOUR - 1):
            place.builder.sign(root, LABEL, public(), 60)
        with pytest.raises(LimitExceeded):
            place.made(2)
        assert [LABEL] == list(place.keys.kept)


class TestTest:
    """Operators have a root sign something to see whether it does."""

    NONCE = bytes(range(TEST_NONCE_BYTES))

    def test_is_good_for_nothing(self, place):
        """What is signed is verified by the root's certificate as a test, and as no certificate, list or other text."""
        root = place.root()
        signature = place.builder.test(root, LABEL, self.NONCE)
        certificate = x509.load_der_x509_certificate(root)
        check_test(certificate, self.NONCE, signature)
        for text in (self.NONCE, bytes(TEST_NONCE_BYTES)):
            with pytest.raises(InvalidSignature):
                certificate.public_key().verify(signature, text, ec.ECDSA(hashes.SHA256()))
        with pytest.raises(InvalidSignature):
            check_test(certificate, bytes(TEST_NONCE_BYTES), signature)

    @pytest.mark.parametrize("nonce", [b"", bytes(TEST_NONCE_BYTES - 1), bytes(TEST_NONCE_BYTES + 1), b"0" * 5_000])
    def test_of_a_certificate(self, place, nonce):
        """Nothing but so many octets is signed: no text of somebody else's choice."""
        with pytest.raises(InvalidInput):
            place.builder.test(place.root(), LABEL, nonce)

    def test_leaves_room(self, place):
        """However often it is asked for, what is to be signed is signed; and it has a limit of its own."""
        root = place.root()
        for _ in range(ROOT_TESTS_AN_HOUR):
            place.builder.test(root, LABEL, self.NONCE)
        with pytest.raises(LimitExceeded):
            place.builder.test(root, LABEL, self.NONCE)
        place.builder.sign(root, LABEL, public(), 60)
