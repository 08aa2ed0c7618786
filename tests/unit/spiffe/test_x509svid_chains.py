"""x509svid.py: chains of certificates, up to the authorities of the one trust domain that may vouch."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.certificates import (
    KEY,
    NOW,
    WEB,
    Issued,
    authority,
    issue,
    san,
)
from fakes.x509chains import (
    GOOD,
    HERE,
    MIDDLE,
    OTHER_ROOT,
    ROOT,
    RSA_1024,
    RSA_2048,
    THERE,
    UNDER_MIDDLE,
    UNKNOWN,
    refusal,
    verify,
)
from sojourn.errors import InvalidSvid
from sojourn.spiffe import x509svid
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import (
    CHAIN_MAX_CERTIFICATES,
    check_leaf,
)

SECOND = timedelta(seconds=1)


class TestVerifyChain:
    def test_under_the_root(self):
        """A leaf that a root signed is good, and its ID is returned."""
        assert SpiffeId.parse(WEB) == verify(GOOD)

    def test_under_an_intermediate(self):
        """A leaf with its intermediate is good."""
        assert SpiffeId.parse(WEB) == verify(UNDER_MIDDLE, MIDDLE)

    def test_one_of_several_roots(self):
        """Each root of the bundle vouches."""
        assert SpiffeId.parse(WEB) == verify(GOOD, roots=[authority(subject="old"), ROOT])

    def test_rsa(self):
        """RSA keys of 2048 bits are good for all certificates."""
        root = authority(key=RSA_2048)
        assert SpiffeId.parse(WEB) == verify(issue(root, key=RSA_2048), roots=[root])

    @pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
    def test_larger_curves(self, curve):
        """The larger NIST curves are good."""
        root = authority(key=ec.generate_private_key(curve))
        assert SpiffeId.parse(WEB) == verify(issue(root, key=ec.generate_private_key(curve)), roots=[root])

    def test_empty(self):
        """No certificate is no chain."""
        rule = "no certificate"
        assert rule == refusal()

    @pytest.mark.parametrize(
        "extra",
        [
            pytest.param([ROOT], id="root-in-chain"),
            pytest.param([GOOD], id="leaf-twice"),
            pytest.param([OTHER_ROOT], id="foreign-root"),
            pytest.param([issue(OTHER_ROOT)], id="foreign-leaf"),
            pytest.param([MIDDLE] * (CHAIN_MAX_CERTIFICATES - 1), id="ten"),
        ],
    )
    def test_spare_certificates(self, extra):
        """Spare certificates in a chain change nothing."""
        assert SpiffeId.parse(WEB) == verify(GOOD, *extra)

    @pytest.mark.parametrize("count", [CHAIN_MAX_CERTIFICATES, 200])
    def test_too_many(self, count):
        """A chain of more than ten certificates is refused before anything is verified."""
        assert "longer than 10" in refusal(GOOD, *[MIDDLE] * count)

    def test_order_of_intermediates(self):
        """Intermediates may come in any order behind the leaf."""
        lower = authority(MIDDLE, subject="lower")
        assert SpiffeId.parse(WEB) == verify(issue(lower), MIDDLE, lower)

    def test_leaf_comes_first(self):
        """A chain whose first certificate is not the leaf is refused."""
        assert "no path" in refusal(MIDDLE, UNDER_MIDDLE)

    def test_first_leaf_counts(self):
        """The ID is that of the first certificate, also if others in the chain are leaves."""
        other = issue(ROOT, san=(san("spiffe://example.org/db"), False))
        expected = "spiffe://example.org/db"
        assert expected == str(verify(other, GOOD))

    def test_cross_signed(self):
        """An intermediate that two roots signed vouches under either."""
        other = authority(subject="root2")
        crossed = authority(other, subject="middle", key=MIDDLE.key)
        assert SpiffeId.parse(WEB) == verify(UNDER_MIDDLE, crossed, MIDDLE, roots=[other])
        assert SpiffeId.parse(WEB) == verify(UNDER_MIDDLE, MIDDLE, crossed, roots=[ROOT])

    @pytest.mark.parametrize(
        ("chain", "roots"),
        [
            pytest.param([UNDER_MIDDLE], [ROOT], id="intermediate-missing"),
            pytest.param([GOOD], [authority()], id="same-name-other-key"),
            pytest.param([GOOD], [MIDDLE], id="other-root"),
            pytest.param([UNDER_MIDDLE, authority(ROOT, subject="middle")], [ROOT], id="intermediate-other-key"),
            pytest.param([UNDER_MIDDLE, authority(subject="middle", key=MIDDLE.key)], [ROOT], id="self-issued"),
            pytest.param([issue(authority()), ROOT], [ROOT], id="signed-by-another"),
            pytest.param([issue()], [ROOT], id="self-signed-leaf"),
            pytest.param([issue(GOOD, subject="below")], [ROOT], id="leaf-in-place-of-root"),
            pytest.param([issue(GOOD, subject="below"), GOOD], [ROOT], id="leaf-as-intermediate"),
        ],
    )
    def test_no_path(self, chain, roots):
        """A chain that does not end in a root of the bundle is refused."""
        rule = "certificate does not chain to its trust domain's bundle"
        assert rule == refusal(*chain, roots=roots)

    @pytest.mark.parametrize(
        "leaf", [pytest.param(GOOD, id="itself"), pytest.param(issue(GOOD, subject="below"), id="one-below")]
    )
    def test_leaf_as_root(self, leaf):
        """A leaf in a bundle vouches for nothing, not even for itself (CVE-2025-6037)."""
        with pytest.raises(InvalidSvid):
            verify(leaf, roots=[GOOD])

    def test_changed_after_signing(self):
        """A leaf with another ID under the same signature is refused."""
        der = GOOD.der.replace(b"example.org/web", b"example.org/dba")
        leaf = Issued(x509.load_der_x509_certificate(der), KEY)
        expected = "spiffe://example.org/dba"
        assert expected == str(check_leaf(leaf.certificate))
        assert "does not chain" in refusal(leaf)

    @pytest.mark.parametrize(
        ("begins", "ends", "good"),
        [
            pytest.param(NOW, NOW + SECOND, True, id="begins-now"),
            pytest.param(NOW + SECOND, NOW + 9 * SECOND, False, id="begins-in-a-second"),
            pytest.param(NOW - SECOND, NOW, True, id="ends-now"),
            pytest.param(NOW - 9 * SECOND, NOW - SECOND, False, id="ended-a-second-ago"),
            pytest.param(NOW - SECOND, datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), True, id="utc-time"),
            pytest.param(NOW - SECOND, datetime(2050, 1, 1, tzinfo=UTC), True, id="generalized-time"),
            pytest.param(NOW - SECOND, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), True, id="no-end"),
            pytest.param(datetime(1950, 1, 1, tzinfo=UTC), NOW - SECOND, False, id="from-1950"),
        ],
    )
    @pytest.mark.parametrize("place", ["leaf", "intermediate", "root"])
    def test_times(self, place, begins, ends, good):
        """Each certificate is good from its first to its last second, both included (RFC 5280 4.1.2.5)."""
        times = {"begins": begins, "ends": ends}
        root = authority(**times if place == "root" else {})
        middle = authority(root, subject="middle", **times if place == "intermediate" else {})
        leaf = issue(middle, **times if place == "leaf" else {})
        if good:
            assert SpiffeId.parse(WEB) == verify(leaf, middle, roots=[root])
        else:
            assert "does not chain" in refusal(leaf, middle, roots=[root])

    def test_leaf_may_outlive_its_issuer(self):
        """A leaf that ends after its issuer is good as long as both are, and not a second longer."""
        middle = authority(ROOT, subject="middle", ends=NOW)
        leaf = issue(middle)
        assert SpiffeId.parse(WEB) == verify(leaf, middle)
        assert "does not chain" in refusal(leaf, middle, now=NOW + SECOND)

    @pytest.mark.parametrize("hours", [-11, -1, 2, 14])
    def test_time_zone_of_now(self, hours):
        """The time is a moment: its zone does not matter."""
        zone = timezone(timedelta(hours=hours))
        leaf = issue(ROOT, begins=NOW - SECOND, ends=NOW + SECOND)
        assert SpiffeId.parse(WEB) == verify(leaf, now=NOW.astimezone(zone))
        with pytest.raises(InvalidSvid):
            verify(leaf, now=(NOW + 2 * SECOND).astimezone(zone))

    def test_path_length(self):
        """A path length that is exceeded is refused."""
        root = authority(constraints=(x509.BasicConstraints(ca=True, path_length=0), True))
        middle = authority(root, subject="middle")
        assert SpiffeId.parse(WEB) == verify(issue(root), roots=[root])
        assert "does not chain" in refusal(issue(middle), middle, roots=[root])

    @pytest.mark.parametrize("place", ["leaf", "intermediate"])
    def test_unknown_critical_extension(self, place):
        """A critical extension that nobody here knows is refused."""
        unknown = {"unknown": (x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"), True)}
        middle = authority(ROOT, subject="middle", **unknown if place == "intermediate" else {})
        assert "does not chain" in refusal(issue(middle, **unknown if place == "leaf" else {}), middle)

    @pytest.mark.parametrize("domain", ["example.org", ".example.org", "other.org"])
    def test_uri_name_constraint(self, domain):
        """A URI name constraint, matching or not, is not understood and so refused."""
        constraint = x509.NameConstraints([x509.UniformResourceIdentifier(domain)], None)
        middle = authority(ROOT, subject="middle", names=(constraint, True))
        assert "does not chain" in refusal(issue(middle), middle)

    def test_dns_name_constraint(self):
        """A DNS name constraint does not concern a leaf that has a URI name only."""
        constraint = x509.NameConstraints([x509.DNSName("example.org")], None)
        middle = authority(ROOT, subject="middle", names=(constraint, True))
        assert SpiffeId.parse(WEB) == verify(issue(middle), middle)

    def test_dns_name_out_of_constraint(self):
        """A DNS name beside the URI that breaks a constraint is refused."""
        constraint = x509.NameConstraints([x509.DNSName("example.org")], None)
        middle = authority(ROOT, subject="middle", names=(constraint, True))
        leaf = issue(middle, san=(san(WEB, dns=["evil.org"]), False))
        assert "does not chain" in refusal(leaf, middle)

    def test_empty_subject(self):
        """An empty subject needs a critical subject alternative name (RFC 5280 4.1.2.6)."""
        assert "does not chain" in refusal(issue(ROOT, subject=""))

    @pytest.mark.parametrize("place", ["leaf", "intermediate", "root"])
    @pytest.mark.parametrize(
        "key",
        [
            pytest.param(RSA_1024, id="rsa-1024"),
            pytest.param(ec.generate_private_key(ec.SECP256K1()), id="secp256k1"),
            pytest.param(ec.generate_private_key(ec.SECP224R1()), id="p-224"),
        ],
    )
    def test_weak_key(self, place, key):
        """A key that is too small, or on another curve, is refused anywhere in the chain."""
        root = authority(key=key if place == "root" else None)
        middle = authority(root, subject="middle", key=key if place == "intermediate" else None)
        leaf = issue(middle, key=key if place == "leaf" else None)
        with pytest.raises(InvalidSvid):
            verify(leaf, middle, roots=[root])

    def test_says_why_in_the_log(self):
        """What path validation found is in the error's detail, and not in its public text."""
        with pytest.raises(InvalidSvid) as caught:
            verify(issue(authority()))
        assert caught.value.detail == str(caught.value.__cause__)
        assert "candidates exhausted" in caught.value.detail

    def test_whatever_validation_raises(self, monkeypatch):
        """A chain over which validation itself fails is refused, and the log says over what."""

        def fail(_):
            raise RuntimeError("out of order")

        monkeypatch.setattr(x509svid, "Store", fail)
        with pytest.raises(InvalidSvid, match="cannot be validated") as caught:
            verify(GOOD)
        assert "out of order" == caught.value.detail

    def test_weak_digest(self):
        """A signature over SHA-224 is refused."""
        assert "does not chain" in refusal(issue(ROOT, digest=hashes.SHA224()))


class TestTrustDomains:
    """A bundle vouches for its own trust domain only."""

    def test_no_authority(self):
        """An empty bundle vouches for nothing."""
        assert "no X.509 bundle" in refusal(GOOD, roots=[])

    def test_member_of_another(self):
        """A leaf of A under A's root is not a member of B, whatever B's bundle is."""
        assert "not a member" in refusal(GOOD, trust_domain=THERE)
        assert "not a member" in refusal(GOOD, roots=[OTHER_ROOT], trust_domain=THERE)

    def test_root_of_another(self):
        """A leaf with an ID in A that B's root signed is refused for A, and for B."""
        forged = issue(OTHER_ROOT)
        assert "does not chain" in refusal(forged)
        assert "not a member" in refusal(forged, roots=[OTHER_ROOT], trust_domain=THERE)

    def test_root_of_another_in_the_bundle(self):
        """B's root in A's bundle by mistake vouches for nothing in A: its ID says that it is B's."""
        rule = "signing certificate's SPIFFE ID is not that of its trust domain"
        assert rule == refusal(issue(OTHER_ROOT), roots=[ROOT, OTHER_ROOT])

    def test_intermediate_of_another(self):
        """An intermediate of B under A's root vouches for nothing in A."""
        middle = authority(ROOT, subject="middle", san=(san("spiffe://other.org"), False))
        rule = "signing certificate's SPIFFE ID is not that of its trust domain"
        assert rule == refusal(issue(middle), middle)

    def test_same_root_in_both(self):
        """A root without ID that is in both bundles vouches in each for the IDs of that trust domain."""
        root = authority(san=None)
        here = issue(root)
        there = issue(root, san=(san("spiffe://other.org/web"), False))
        expected = HERE
        assert expected == verify(here, roots=[root]).trust_domain
        expected = THERE
        assert expected == verify(there, roots=[root], trust_domain=THERE).trust_domain
        assert "not a member" in refusal(here, roots=[root], trust_domain=THERE)
        assert "not a member" in refusal(there, roots=[root])
