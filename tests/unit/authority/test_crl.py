"""crl.py: lists of revoked leaves, as OpenSSL reads them."""

import shutil
import subprocess
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.authorities import authority_in
from sojourn.authority.crl import RevokedLeaf
from sojourn.authority.x509_profile import signer_id
from sojourn.spiffe.ids import SpiffeId
from sojourn.workloadapi.messages import X509Context

WEB = SpiffeId.parse("spiffe://example.org/web")
HOUR = timedelta(hours=1)


@pytest.fixture
def authority(tmp_path, clock):
    return authority_in(tmp_path / "keys", clock)


def revoked(svid, clock):
    return RevokedLeaf(svid.leaf.serial_number, signer_id(svid.leaf), signer_id(svid.chain[-1]), clock.now())


def openssl(folder, svid, authority, crls, clock, *flags):
    """What `openssl verify` says of an SVID."""
    for name, content in (
        ("leaf.pem", svid.leaf.public_bytes(Encoding.PEM)),
        ("issuer.pem", svid.chain[1].public_bytes(Encoding.PEM)),
        ("root.pem", authority.bundle.x509_pem),
        ("crl.pem", b"".join(x509.load_der_x509_crl(each).public_bytes(Encoding.PEM) for each in crls)),
    ):
        (folder / name).write_bytes(content)
    tool = shutil.which("openssl")
    assert tool is not None
    done = subprocess.run(
        [tool, "verify", "-attime", str(int(clock.now().timestamp())), "-CAfile", "root.pem", "-untrusted",
         "issuer.pem", "-CRLfile", "crl.pem", "-crl_check", *flags, "leaf.pem"],
        cwd=folder, capture_output=True, text=True, timeout=10,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_none(authority):
    """While nothing is revoked there is no list."""
    assert () == authority.sign_crls([])


def test_openssl_refuses_what_is_listed(authority, tmp_path, clock):
    """By the list OpenSSL refuses the leaf that is in it and accepts another of the same intermediate."""
    bad, good = authority.issue_x509(WEB, HOUR), authority.issue_x509(WEB, HOUR)
    crls = authority.sign_crls([revoked(bad, clock)])
    assert "certificate revoked" in openssl(tmp_path, bad, authority, crls, clock)
    assert "leaf.pem: OK" in openssl(tmp_path, good, authority, crls, clock)


def test_of_an_intermediate_before(authority, tmp_path, clock):
    """A leaf of the intermediate before is listed by that one, while it lives."""
    bad = authority.issue_x509(WEB, 24 * HOUR)
    clock.advance(13 * 3600)
    authority.maintain()
    other = authority.issue_x509(WEB, HOUR)
    crls = authority.sign_crls([revoked(bad, clock), revoked(other, clock)])
    assert 2 == len(crls)
    for svid in (bad, other):
        assert "certificate revoked" in openssl(tmp_path, svid, authority, crls, clock)


def test_of_an_intermediate_that_is_lost(authority, tmp_path, clock):
    """After a restart the intermediate's key is gone: the root lists its leaf in an indirect list."""
    bad = authority.issue_x509(WEB, HOUR)
    again = authority_in(tmp_path / "keys", clock)
    [der] = again.sign_crls([revoked(bad, clock)])
    crl = x509.load_der_x509_crl(der)
    assert again.root.subject == crl.issuer
    assert crl.is_signature_valid(again.root.public_key())
    [entry] = crl
    [name] = entry.extensions.get_extension_for_class(x509.CertificateIssuer).value
    assert (bad.leaf.serial_number, bad.leaf.issuer) == (entry.serial_number, name.value)
    assert crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value.indirect_crl
    assert {(bad.leaf.issuer.public_bytes(), bad.leaf.serial_number)} == X509Context((), {}, (crl,)).revoked
    assert "verification failed" in openssl(tmp_path, bad, again, [der], clock, "-extended_crl")


def test_of_a_root_that_is_revoked(authority, clock):
    """A leaf whose root is gone needs no list: nothing verifies it."""
    lost = revoked(authority.issue_x509(WEB, HOUR), clock)
    assert () == authority.sign_crls([RevokedLeaf(lost.serial, "00" * 20, "11" * 20, lost.revoked_at)])


def test_many(authority, clock):
    """A list of thousands is one list, small enough for an answer."""
    one = revoked(authority.issue_x509(WEB, HOUR), clock)
    leaves = [RevokedLeaf(2**126 + place, one.issuer_id, one.root_id, one.revoked_at) for place in range(20_000)]
    [der] = authority.sign_crls(leaves)
    assert (20_000, True) == (len(x509.load_der_x509_crl(der)), len(der) < 1_000_000)
