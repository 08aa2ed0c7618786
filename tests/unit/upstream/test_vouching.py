"""vouching.py: what a server has signed is good while its authority is neither tainted nor gone."""

from dataclasses import replace

from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from fakes.ca import FakeCa, odd_certificate
from sojourn.jose.jws import SigningKey
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId
from sojourn.upstream.vouching import Vouching, authority_id

CA = FakeCa.make()
OTHER = FakeCa.make()
SVID = CA.svid("/web")
BUNDLE = Bundle(CA.trust_domain, (CA.root, OTHER.root))


class TestX509:
    def test_good(self) -> None:
        """An SVID of an authority of the bundle is good."""
        assert Vouching(BUNDLE).of_x509(SVID)

    def test_tainted(self) -> None:
        """An SVID of a tainted authority is not, and those of others are."""
        vouching = Vouching(replace(BUNDLE, tainted=frozenset({authority_id(CA.root)})))
        assert not vouching.of_x509(SVID)
        assert vouching.of_x509(OTHER.svid("/web"))
        assert {authority_id(OTHER.root)} == vouching.ids

    def test_gone(self) -> None:
        """An SVID of an authority that is not in the bundle is not good."""
        assert not Vouching(Bundle(CA.trust_domain, (OTHER.root,))).of_x509(SVID)

    def test_an_authority_in_the_middle(self) -> None:
        """Where the bundle has an authority below the root, that one decides."""
        both = Bundle(CA.trust_domain, (CA.root, CA.intermediate))
        assert Vouching(Bundle(CA.trust_domain, (CA.intermediate,))).of_x509(SVID)
        assert Vouching(replace(both, tainted=frozenset({authority_id(CA.root)}))).of_x509(SVID)
        assert not Vouching(replace(both, tainted=frozenset({authority_id(CA.intermediate)}))).of_x509(SVID)

    def test_what_cannot_be_read(self) -> None:
        """A certificate that cannot be read in full says nothing of who has signed, and ends nothing."""
        odd = odd_certificate()
        vouching = Vouching(replace(BUNDLE, x509_authorities=(*BUNDLE.x509_authorities, odd)))
        assert vouching.of_x509(replace(SVID, chain=(odd, *SVID.chain)))
        assert not Vouching(BUNDLE).of_x509(replace(SVID, chain=(odd,)))
        assert authority_id(odd)

    def test_no_authority_id(self) -> None:
        """An authority whose own ID is malformed has the one that its key gives."""
        malformed = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_KEY_IDENTIFIER, b"\xff\xff")
        odd = odd_certificate(malformed)
        assert x509.SubjectKeyIdentifier.from_public_key(odd.public_key()).digest.hex() == authority_id(odd)


class TestJwt:
    def test_by_its_key(self) -> None:
        """A JWT-SVID is good while its key is in the bundle and not tainted."""
        key = SigningKey.generate("k1")
        now = CA.root.not_valid_before_utc
        svid = jwtsvid.issue(key, SpiffeId.parse("spiffe://example.org/web"), "a", issued_at=now, expires_at=now)
        bundle = Bundle(CA.trust_domain, (CA.root,), {"k1": key.public})
        assert Vouching(bundle).of_jwt(svid)
        assert not Vouching(replace(bundle, tainted=frozenset({"k1"}))).of_jwt(svid)
        assert not Vouching(BUNDLE).of_jwt(svid)
        assert not Vouching(bundle).of_jwt(replace(svid, token="nonsense"))
