"""x509_profile.py: certificates as X509-SVID.md wants them, linted before they are signed."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sojourn.authority import x509_profile as profile_module
from sojourn.authority.x509_profile import Signer, self_sign
from sojourn.errors import SojournError, Unavailable
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import check_authority, check_leaf, verify_chain

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TD = TrustDomain("example.org")
WEB = SpiffeId.parse("spiffe://example.org/web")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture(scope="module", params=[ec.SECP256R1(), ec.SECP384R1()], ids=["P-256", "P-384"])
def curve(request):
    return request.param


@pytest.fixture(scope="module")
def root(curve):
    key = ec.generate_private_key(curve)
    return Signer(self_sign(TD, key, NOW, NOW + 10 * DAY), key)


@pytest.fixture(scope="module")
def issuer(root, curve):
    key = ec.generate_private_key(curve)
    return Signer(root.sign_authority(TD, key.public_key(), NOW, NOW + DAY), key)


@pytest.fixture(scope="module")
def key(curve):
    return ec.generate_private_key(curve).public_key()


def leaf_of(issuer, key, **changes):
    arguments = {"not_before": NOW, "not_after": NOW + HOUR, **changes}
    return issuer.sign_leaf(arguments.pop("spiffe_id", WEB), key, **arguments)


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


class TestLeaf:
    def test_keeps_every_rule(self, root, issuer, key):
        """A leaf keeps every rule of an X.509-SVID and chains to the root."""
        leaf = leaf_of(issuer, key)
        assert WEB == check_leaf(leaf)
        assert WEB == verify_chain([leaf, issuer.certificate], [root.certificate], TD, NOW + timedelta(minutes=1))

    def test_is_for_one_id(self, issuer, key):
        """A leaf has one URI name, the SPIFFE ID."""
        names = extension(leaf_of(issuer, key), x509.SubjectAlternativeName).value
        assert [str(WEB)] == names.get_values_for_type(x509.UniformResourceIdentifier)
        assert 1 == len(list(names))

    def test_dns_names(self, issuer, key):
        """DNS names stand beside the SPIFFE ID, the first one as common name too, cut to what fits there."""
        long = "x" * 63 + ".example.org"
        leaf = leaf_of(issuer, key, dns_names=[long, "b.example"])
        names = extension(leaf, x509.SubjectAlternativeName).value
        assert [long, "b.example"] == names.get_values_for_type(x509.DNSName)
        assert [long[:64]] == [each.value for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]

    def test_extensions(self, issuer, key):
        """A leaf is no authority and serves as server and client."""
        leaf = leaf_of(issuer, key)
        constraints, usage = extension(leaf, x509.BasicConstraints), extension(leaf, x509.KeyUsage)
        assert (True, False) == (constraints.critical, constraints.value.ca)
        assert (True, True, False, False) == (
            usage.critical,
            usage.value.digital_signature,
            usage.value.key_cert_sign,
            usage.value.crl_sign,
        )
        assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} == set(
            extension(leaf, x509.ExtendedKeyUsage).value
        )

    def test_is_clipped_to_its_issuer(self, issuer, key):
        """A leaf lives within the life of its issuer."""
        leaf = leaf_of(issuer, key, not_before=NOW - HOUR, not_after=NOW + 5 * DAY)
        assert (NOW, NOW + DAY) == (leaf.not_valid_before_utc, leaf.not_valid_after_utc)

    @pytest.mark.parametrize("not_after", [NOW, NOW - HOUR])
    def test_no_life_left(self, issuer, key, not_after):
        """A leaf without a life is never signed."""
        with pytest.raises(Unavailable):
            leaf_of(issuer, key, not_after=not_after)

    @pytest.mark.parametrize("spiffe_id", [SpiffeId.parse("spiffe://example.org")])
    def test_what_breaks_a_rule_is_never_signed(self, issuer, key, spiffe_id):
        """A leaf that would break a rule is refused before the real key signs it."""
        with pytest.raises(SojournError):
            leaf_of(issuer, key, spiffe_id=spiffe_id)

    def test_what_was_read_is_signed(self, issuer, key, monkeypatch):
        """The bytes that the linter has read are those that are signed, and what it read was signed by no real key."""
        read = []
        monkeypatch.setattr(profile_module, "check_leaf", lambda draft: read.append(draft) or check_leaf(draft))
        leaf = leaf_of(issuer, key)
        (draft,) = read
        assert draft.tbs_certificate_bytes == leaf.tbs_certificate_bytes
        assert draft.signature_algorithm_oid == leaf.signature_algorithm_oid
        leaf.verify_directly_issued_by(issuer.certificate)
        with pytest.raises(InvalidSignature):
            draft.verify_directly_issued_by(issuer.certificate)

    @pytest.mark.parametrize("names", [0, 1, 20])
    def test_of_any_length(self, issuer, key, names):
        """A leaf is whole, and is read back as it is, however long it gets."""
        leaf = leaf_of(issuer, key, dns_names=[f"{'a' * 60}.{number}.example.org" for number in range(names)])
        leaf.verify_directly_issued_by(issuer.certificate)
        assert leaf == x509.load_der_x509_certificate(leaf.public_bytes(Encoding.DER))

    def test_serials_are_random(self, issuer, key):
        """Serial numbers are positive, of one length, and differ."""
        serials = {leaf_of(issuer, key).serial_number for _ in range(20)}
        assert 20 == len(serials)
        assert {127} == {serial.bit_length() for serial in serials}

    def test_digest_as_strong_as_the_key(self, issuer, key, curve):
        """What signs with P-384 hashes with SHA-384."""
        expected = hashes.SHA384 if curve.key_size == 384 else hashes.SHA256
        assert expected is type(leaf_of(issuer, key).signature_hash_algorithm)


class TestAuthority:
    def test_keeps_every_rule(self, root, issuer):
        """Root and intermediate keep every rule of a signing certificate."""
        for certificate in (root.certificate, issuer.certificate):
            check_authority(certificate, TD)

    def test_depth(self, root, issuer):
        """The root may have one tier below, the intermediate none."""
        assert [1, 0] == [
            extension(each.certificate, x509.BasicConstraints).value.path_length for each in (root, issuer)
        ]

    def test_is_clipped_to_the_root(self, root, key):
        """An intermediate lives within the life of the root."""
        made = root.sign_authority(TD, key, NOW - DAY, NOW + 400 * DAY)
        assert (NOW, NOW + 10 * DAY) == (made.not_valid_before_utc, made.not_valid_after_utc)

    def test_names_differ(self, root, curve):
        """Two intermediates have different subjects: verifiers look issuers up by name."""
        made = {
            root.sign_authority(TD, ec.generate_private_key(curve).public_key(), NOW, NOW + DAY).subject
            for _ in range(2)
        }
        assert 2 == len(made)

    def test_long_trust_domain(self, curve):
        """The longest trust domain has a root too."""
        domain = TrustDomain("x" * 255)
        check_authority(self_sign(domain, ec.generate_private_key(curve), NOW, NOW + DAY), domain)

    def test_repr_hides_the_key(self, issuer):
        """The repr of a signer shows its name only."""
        assert repr(issuer).startswith("Signer(")
        assert "key" not in repr(issuer).lower().replace("sojourn", "")
