"""Weaknesses published of other systems in how certificates, bundles and names are read, each tried here under its name."""

import pytest
from cryptography import x509
from fakes.certificates import NOW, authority, issue, san
from sojourn.errors import InvalidBundle, InvalidSpiffeId, InvalidSvid
from sojourn.spiffe import bundle as bundles
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import check_leaf, verify_chain

pytestmark = pytest.mark.full

HERE = TrustDomain("example.org")


@pytest.mark.parametrize("issuer", ["foreign root", "no chain", "its own"])
def test_SPIRE_655_chains_of_a_foreign_root(issuer: str) -> None:
    """A leaf with the right ID that does not chain to its own trust domain's bundle is refused."""
    root, foreign = authority(), authority(subject="foreign")
    leaf = issue({"foreign root": foreign, "no chain": authority(subject="other"), "its own": None}[issuer])
    chain = [leaf.certificate] + ([foreign.certificate] if issuer == "foreign root" else [])
    with pytest.raises(InvalidSvid):
        verify_chain(chain, [root.certificate], HERE, NOW)
    assert str(verify_chain([issue(root).certificate], [root.certificate], HERE, NOW)).startswith(
        "spiffe://example.org/"
    )


def test_go_spiffe_27_what_parsing_refuses_verifying_refuses_too() -> None:
    """A leaf for a whole trust domain is refused where it is read and where it is verified."""
    root = authority()
    leaf = issue(root, san=(san("spiffe://example.org"), False)).certificate
    for check in (lambda: check_leaf(leaf), lambda: verify_chain([leaf], [root.certificate], HERE, NOW)):
        with pytest.raises(InvalidSvid):
            check()


@pytest.mark.parametrize(
    "name",
    [
        "example.org\n",
        "\u212aelvin.org",
        "\u0130.org",
        "\u017fpiffe.org",
        "ex\u0430mple.org",
        "EXAMPLE.org",
        "a\0",
        "a.org\r",
        "\uff41.org",
    ],
)
def test_py_spiffe_names_that_look_alike(name: str) -> None:
    """A name that folds or strips into a good one is refused, wherever names are read."""
    for read in (
        lambda: TrustDomain.parse(name),
        lambda: SpiffeId.parse(f"spiffe://{name}/web"),
        lambda: SpiffeId.from_parts(name, "/web"),
        lambda: SpiffeId.parse(f"spiffe://example.org/{name}\n"),
    ):
        with pytest.raises(InvalidSpiffeId):
            read()


def test_CVE_2026_40097_empty_lists() -> None:
    """Where the first of a list is looked at, an empty list is refused and breaks nothing."""
    root = authority()
    oid = x509.ExtendedKeyUsage.oid
    for name, extension in (
        ("extended", x509.UnrecognizedExtension(oid, b"\x30\x00")),
        ("san", x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x00")),
        ("usage", x509.UnrecognizedExtension(x509.KeyUsage.oid, b"\x03\x01\x00")),
    ):
        leaf = issue(root, **{name: (extension, False)}).certificate
        with pytest.raises(InvalidSvid):
            verify_chain([leaf], [root.certificate], HERE, NOW)
    with pytest.raises(InvalidSvid):
        verify_chain([], [root.certificate], HERE, NOW)
    for keys in ([], [{}], [[]], [None], [{"kty": "EC", "use": "x509-svid", "x5c": []}]):
        assert () == bundles.parse(HERE, {"keys": keys}).x509_authorities
    for x5c in ([[]], [None], [""], "", {"0": "x"}, [{}]):
        if x5c:
            with pytest.raises(InvalidBundle):
                bundles.parse(HERE, {"keys": [{"kty": "EC", "use": "x509-svid", "x5c": x5c}]})


def test_CVE_2025_6037_a_leaf_is_no_trust_anchor() -> None:
    """A certificate that is no authority vouches for nobody, although it lies in the bundle."""
    root = authority()
    leaf = issue(root)
    below = issue(leaf, subject="below").certificate
    for chain in ([leaf.certificate], [below], [below, leaf.certificate]):
        with pytest.raises(InvalidSvid):
            verify_chain(chain, [leaf.certificate], HERE, NOW)
