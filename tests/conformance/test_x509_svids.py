"""X509-SVID.md, rows X509-01 to X509-34: the certificates that the agent issued, and what our verifiers refuse."""

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from conformance.ground import Issued, Registered, WorkloadWire, issued_in
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from fakes.authorities import authority_in
from fakes.ca import FakeCa
from fakes.certificates import CLIENT, NOW, SERVER, WEB, authority, issue, raw_san, san, usage
from fakes.clock import FakeClock
from fakes.task_feed import signing_key
from harness.raw import Admin, entry
from harness.reading import uris
from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn.errors import InvalidSvid, SojournError
from sojourn.spiffe import bundle as bundles
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import check_leaf, verify_chain

HERE = TrustDomain("example.org")
ROOT = authority()
MIDDLE = authority(ROOT, subject="middle")
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")


def verify(*chain: Any, roots: Any = (ROOT,), domain: TrustDomain = HERE) -> str:
    found = verify_chain([each.certificate for each in chain], [each.certificate for each in roots], domain, NOW)
    return str(found)


def refusal(*chain: Any, **arguments: Any) -> str:
    """Why a chain is refused."""
    with pytest.raises(InvalidSvid) as caught:
        verify(*chain, **arguments)
    return caught.value.public


def refused_leaf(**changes: Any) -> str:
    """Why a leaf is refused that is good but for `changes`: by itself, and in a chain in the same words."""
    leaf = issue(ROOT, **changes)
    with pytest.raises(InvalidSvid) as caught:
        check_leaf(leaf.certificate)
    assert caught.value.public == refusal(leaf)
    return caught.value.public


def extension(certificate: x509.Certificate, kind: Any) -> x509.Extension[Any]:
    return certificate.extensions.get_extension_for_class(kind)


def has(certificate: x509.Certificate, kind: Any) -> bool:
    return any(isinstance(each.value, kind) for each in certificate.extensions)


# --- names ----------------------------------------------------------------------------------------------------------


def test_X509_01_one_uri_name(issued: Issued) -> None:
    """An issued leaf has one URI name, and that is its SPIFFE ID."""
    assert ["spiffe://example.org/me"] == uris(issued.leaf) == [issued.svid.spiffe_id]


@pytest.mark.parametrize("second", ["spiffe://example.org/db", "https://example.org/web", WEB])
def test_X509_02_two_uri_names(second: str) -> None:
    """A certificate with a second URI name is refused, whatever that is, and even if it is the same again."""
    assert "certificate has 2 URI names, not one" == refused_leaf(san=(san(WEB, second), False))
    assert "certificate has 2 URI names, not one" == refused_leaf(san=(san(second, WEB), False))


def test_X509_03_other_names(registered: Registered, wire: WorkloadWire) -> None:
    """DNS names may stand beside the ID, when issuing and when verifying."""
    with registered("/named", dns_names=["web.example.org", "*.example.net"]):
        [svid] = [each for each in wire.x509().svids if each.spiffe_id.endswith("/named")]
    issued = issued_in(svid)
    names = extension(issued.leaf, x509.SubjectAlternativeName).value
    assert ["web.example.org", "*.example.net"] == names.get_values_for_type(x509.DNSName)
    assert ["spiffe://example.org/named"] == uris(issued.leaf)
    now = issued.leaf.not_valid_before_utc
    found = verify_chain([issued.leaf, issued.issuer], [issued.root], HERE, now)
    assert "spiffe://example.org/named" == str(found)


def test_X509_04_leaf_has_a_path(admin: Admin, tmp_path: Any) -> None:
    """No leaf is issued for the trust domain's own ID: not by way of registration, and not by the authority."""
    [result] = admin.create(entry("", "unix:uid:4200"))
    assert (3, True) == (result.status.code, "path is empty" in result.status.message)
    with pytest.raises(SojournError, match="no path"):
        authority_in(tmp_path, FakeClock(NOW)).issue_x509(HERE.id, timedelta(hours=1))


def test_X509_05_authority_has_no_path(issued: Issued) -> None:
    """The signing certificates have the trust domain's own ID."""
    assert [["spiffe://example.org"]] * 2 == [uris(each) for each in issued.authorities]


def test_X509_06_authority_is_an_svid(issued: Issued) -> None:
    """The signing certificates are SVIDs of the leaf's trust domain, by all the rules for them."""
    domain = SpiffeId.parse(issued.svid.spiffe_id).trust_domain
    for each in issued.authorities:
        assert [str(domain.id)] == uris(each)
        assert (True, True) == (has(each, x509.KeyUsage), has(each, x509.BasicConstraints))


def test_X509_07_empty_subject(issued: Issued) -> None:
    """A certificate without subject would need its names to be critical: ours all have a subject, and so different
    ones that nothing is mistaken for another."""
    unnamed = [
        each
        for each in issued.chain
        if not list(each.subject) and not extension(each, x509.SubjectAlternativeName).critical
    ]
    assert [] == unnamed
    assert 3 == len({each.subject.public_bytes() for each in issued.chain})


def test_X509_08_authority_is_no_peer(issued: Issued) -> None:
    """A signing certificate authenticates nobody, and the key that a workload gets is not the one of its authority."""
    now = issued.leaf.not_valid_before_utc
    for chain in ([issued.issuer], [issued.issuer, issued.root], [issued.root]):
        with pytest.raises(InvalidSvid, match="no path"):
            verify_chain(chain, [issued.root], HERE, now)
    with_path = authority(ROOT, subject="middle", san=(san(WEB), False))
    assert "leaf has the cA flag" == refusal(with_path)
    key = load_der_private_key(issued.svid.x509_svid_key, None).public_key()
    assert [True, False, False] == [key == each.public_key() for each in issued.chain]


def test_X509_09_authority_under_authority(issued: Issued) -> None:
    """A signing certificate may sign another: leaves are signed by an intermediate, which the root signed."""
    now = issued.leaf.not_valid_before_utc
    assert "spiffe://example.org/me" == str(verify_chain([issued.leaf, issued.issuer], [issued.root], HERE, now))
    with pytest.raises(InvalidSvid):
        verify_chain([issued.leaf], [issued.root], HERE, now)


# --- extensions -----------------------------------------------------------------------------------------------------


def test_X509_10_authority_has_ca(issued: Issued) -> None:
    """The signing certificates have the cA flag."""
    assert [True, True] == [extension(each, x509.BasicConstraints).value.ca for each in issued.authorities]


def test_X509_11_leaf_has_no_ca(issued: Issued) -> None:
    """A leaf says that it is no authority."""
    assert not extension(issued.leaf, x509.BasicConstraints).value.ca


@pytest.mark.own_authority("a permission, of which a SPIRE server makes no use")
def test_X509_12_path_length(issued: Issued) -> None:
    """Each signing certificate says how many more may follow: none below the issuer, one below the root."""
    assert [0, 1] == [extension(each, x509.BasicConstraints).value.path_length for each in issued.authorities]


def test_X509_13_no_name_constraints(issued: Issued) -> None:
    """Name constraints, which many libraries do not understand, are not used."""
    assert [False] * 3 == [has(each, x509.NameConstraints) for each in issued.chain]


def test_X509_14_key_usage_is_critical(issued: Issued) -> None:
    """Every certificate has a key usage, and it is critical."""
    assert [True] * 3 == [extension(each, x509.KeyUsage).critical for each in issued.chain]


def test_X509_15_authority_signs_certificates(issued: Issued) -> None:
    """The signing certificates have keyCertSign."""
    assert [True, True] == [extension(each, x509.KeyUsage).value.key_cert_sign for each in issued.authorities]


def test_X509_16_authority_may_sign_lists(issued: Issued) -> None:
    """The signing certificates have cRLSign too, and are not made for anything else."""
    usages = [extension(each, x509.KeyUsage).value for each in issued.authorities]
    assert [(True, False)] * 2 == [(each.crl_sign, each.digital_signature) for each in usages]


def test_X509_17_leaf_signs(issued: Issued) -> None:
    """A leaf has digitalSignature."""
    assert extension(issued.leaf, x509.KeyUsage).value.digital_signature


def test_X509_18_leaf_may_encipher() -> None:
    """A leaf that has keyEncipherment or keyAgreement as well is good (ours, of elliptic curves, need neither)."""
    names = ("digital_signature", "key_encipherment", "key_agreement")
    assert WEB == verify(issue(ROOT, usage=(usage(*names), True)))


def test_X509_19_leaf_does_not_sign_certificates(issued: Issued) -> None:
    """A leaf has neither keyCertSign nor cRLSign."""
    found = extension(issued.leaf, x509.KeyUsage).value
    assert (False, False) == (found.key_cert_sign, found.crl_sign)


def test_X509_20_leaf_has_extended_usage(issued: Issued) -> None:
    """A leaf has an extended key usage; for a verifier it may be critical or not, or be missing."""
    assert has(issued.leaf, x509.ExtendedKeyUsage)
    both = x509.ExtendedKeyUsage([SERVER, CLIENT])
    assert [WEB] * 3 == [verify(issue(ROOT, extended=each)) for each in ((both, True), (both, False), None)]


def test_X509_21_server_and_client(issued: Issued) -> None:
    """A leaf's extended key usage names servers and clients both, or it is refused."""
    expected = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert expected == set(extension(issued.leaf, x509.ExtendedKeyUsage).value)
    for one in ([SERVER], [CLIENT], [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]):
        assert "lacks serverAuth or clientAuth" in refused_leaf(extended=(x509.ExtendedKeyUsage(one), False))


def test_X509_22_authority_has_no_extended_usage(issued: Issued) -> None:
    """The signing certificates have no extended key usage, since verifiers differ in what they make of one."""
    assert [False, False] == [has(each, x509.ExtendedKeyUsage) for each in issued.authorities]


# --- verifying ------------------------------------------------------------------------------------------------------

SECOND = timedelta(seconds=1)


def below(*authorities: Any) -> list[Any]:
    """A good leaf under the first of these signing certificates, and all of them."""
    return [issue(authorities[0]), *authorities]


def path_of(length: int) -> list[Any]:
    """A leaf under two intermediates, the upper of which allows `length` more below it."""
    upper = authority(ROOT, subject="upper", constraints=(x509.BasicConstraints(ca=True, path_length=length), True))
    return below(authority(upper, subject="lower"), upper)


BROKEN = {
    "expired": [issue(ROOT, ends=NOW - SECOND)],
    "not valid yet": [issue(ROOT, begins=NOW + SECOND)],
    "issuer expired": below(authority(ROOT, subject="old", ends=NOW - SECOND)),
    "issuer missing": [issue(MIDDLE)],
    "issuer of the same name and another key": [issue(authority(ROOT, subject="middle")), MIDDLE],
    "a leaf as issuer": [issue(issue(ROOT), subject="below"), issue(ROOT)],
    "path too long": path_of(0),
    "unknown and critical": [issue(ROOT, unknown=(UNKNOWN, True))],
    "unknown and critical in the issuer": below(authority(ROOT, subject="odd", unknown=(UNKNOWN, True))),
    "self-signed": [issue()],
}


@pytest.mark.parametrize("chain", BROKEN.values(), ids=BROKEN)
def test_X509_23_path_validation(chain: list[Any]) -> None:
    """A chain that fails the path validation of RFC 5280 is refused."""
    assert "certificate does not chain to its trust domain's bundle" == refusal(*chain)
    assert [WEB, WEB] == [verify(*below(MIDDLE)), verify(*path_of(1))]


def test_X509_24_leaf_with_ca_is_refused() -> None:
    """A leaf with the cA flag is refused."""
    assert "leaf has the cA flag" == refused_leaf(constraints=(x509.BasicConstraints(ca=True, path_length=None), True))


@pytest.mark.parametrize("name", ["key_cert_sign", "crl_sign"])
def test_X509_25_leaf_that_signs_certificates_is_refused(name: str) -> None:
    """A leaf with keyCertSign or cRLSign is refused."""
    assert "leaf's key usage has keyCertSign or cRLSign" == refused_leaf(usage=(usage("digital_signature", name), True))


@pytest.mark.parametrize("uri", [b"https://example.org/web", b"spiffes://example.org/web", b"urn:x", b""])
def test_X509_26_other_scheme_is_refused(uri: bytes) -> None:
    """A leaf whose one URI has another scheme than `spiffe` is refused."""
    assert "certificate has an invalid SPIFFE ID" in refused_leaf(san=(raw_san(uri), False))


@pytest.mark.parametrize(("uri", "why"), [(b"spiffe://example.org", "no path"), (b"spiffe://example.org/", "slash")])
def test_X509_27_root_path_is_refused(uri: bytes, why: str) -> None:
    """A leaf whose ID has no path, or only a slash, is refused."""
    assert why in refused_leaf(san=(raw_san(uri), False))


# --- bundles --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(admin: Admin) -> list[dict[str, Any]]:
    """The keys of the agent's own bundle document that are for X.509."""
    answer = admin.unary("/sojourn.v1.Admin/GetBundle", admin_pb2.GetBundleRequest(), admin_pb2.GetBundleResponse)
    return [jwk for jwk in json.loads(answer.spiffe_bundle)["keys"] if "x5c" in jwk or jwk["use"] == "x509-svid"]


def test_X509_28_use(published: list[dict[str, Any]], issued: Issued) -> None:
    """The bundle has an entry for each root, whose use is `x509-svid` and whose key is that of the root."""
    numbers = issued.root.public_key().public_numbers()  # type: ignore[union-attr]
    x, y = (_base64url(each.to_bytes(32, "big")) for each in (numbers.x, numbers.y))  # type: ignore[union-attr]
    found = [{name: value for name, value in jwk.items() if name != "x5c"} for jwk in published]
    assert [{"kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "x509-svid"}] == found


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_X509_29_no_kid(published: list[dict[str, Any]]) -> None:
    """The entries for X.509 have no key ID, also when the same bundle has keys that do have one."""
    assert [False] == ["kid" in jwk for jwk in published]


def test_X509_30_one_certificate(published: list[dict[str, Any]], issued: Issued) -> None:
    """Such an entry has one certificate: the root's DER in ordinary base64."""
    expected = base64.standard_b64encode(issued.root.public_bytes(Encoding.DER)).decode()
    assert [[expected]] == [jwk["x5c"] for jwk in published]


def test_X509_31_self_signed(published: list[dict[str, Any]]) -> None:
    """The published certificate is self-signed."""
    [certificate] = [x509.load_der_x509_certificate(base64.b64decode(jwk["x5c"][0])) for jwk in published]
    certificate.verify_directly_issued_by(certificate)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def document(*keys: dict[str, Any]) -> dict[str, Any]:
    return {"keys": list(keys)}


def x509_key(*certificates: x509.Certificate, **changes: Any) -> dict[str, Any]:
    texts = [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in certificates]
    whole = {"kty": "EC", "crv": "P-256", "use": "x509-svid", "x5c": texts, **changes}
    return {name: value for name, value in whole.items() if value is not None}


@pytest.mark.parametrize("x5c", [None, []], ids=["missing", "empty"])
def test_X509_32_without_certificate(ca: FakeCa, x5c: list[str] | None) -> None:
    """An X.509 entry without a certificate is passed over, and the next one counts."""
    read = bundles.parse(HERE, document(x509_key(x5c=x5c), x509_key(ca.root)))
    assert (ca.root,) == read.x509_authorities


def test_X509_33_first_certificate(ca: FakeCa, other_ca: FakeCa) -> None:
    """Of several certificates in one entry only the first counts, whatever the others are."""
    key = x509_key(ca.root, other_ca.root)
    key["x5c"].append("no certificate")
    assert (ca.root,) == bundles.parse(HERE, document(key)).x509_authorities


def test_X509_34_no_x509_entry(ca: FakeCa) -> None:
    """A bundle without an entry for X.509 vouches for no X509-SVID of its trust domain."""
    jwt = {**signing_key().public.jwk, "use": "jwt-svid"}
    read = bundles.parse(HERE, document(jwt, x509_key(ca.root, use="sig")))
    assert ((), 1) == (read.x509_authorities, len(read.jwt_authorities))
    svid = ca.svid()
    with pytest.raises(InvalidSvid, match="for trust domain"):
        verify_chain(svid.chain, read.x509_authorities, HERE, svid.leaf.not_valid_before_utc)
