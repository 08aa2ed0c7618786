"""bundle_fetch.py: authorities that we could take, and that the library of a workload would refuse with all that comes along."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sojourn.errors import BundleNotFetched
from sojourn.federation import bundle_fetch
from sojourn.spiffe.ids import TrustDomain

PARTNER = TrustDomain("partner.org")
KEY = ec.generate_private_key(ec.SECP256R1())
ECDSA_WITH_SHA256 = bytes.fromhex("06082a8648ce3d040302")


def authority(public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    """An authority of the partner's, DER, with all that such certificates say."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root"), x509.NameAttribute(NameOID.COUNTRY_NAME, "DE")])
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    uri = x509.UniformResourceIdentifier("spiffe://partner.org")
    return (
        x509.CertificateBuilder(name, name, public, 0x1234567890, now, now + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, decipher_only=False, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(x509.NameConstraints([x509.DNSName("a.example")], None), critical=True)
        .sign(KEY, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


GOOD = authority(KEY.public_key())
END = GOOD.rindex(ECDSA_WITH_SHA256)


def changed(before: bytes, after: bytes) -> bytes:
    assert before in GOOD
    assert len(before) == len(after)
    return GOOD.replace(before, after)


ODD = {
    "one extension twice": changed(bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d13")),
    "an escape that is none": changed(b"spiffe://partner.org", b"spiffe://partner.%zz"),
    "a name with a control character": changed(b"spiffe://partner.org", b"spiffe://partner\x01org"),
    "no URI": changed(b"spiffe://partner.org", b"spi fe://partner.org"),
    "a constraint that is not ASCII": changed(b"a.example", b"a.ex\xe4mple"),
    "a negative number": changed(bytes.fromhex("02051234567890"), bytes.fromhex("02059234567890")),
    "another algorithm beside its signature": GOOD[:END]
    + bytes.fromhex("06082a8648ce3d040303")
    + GOOD[END + len(ECDSA_WITH_SHA256) :],
    "an RSA exponent of 65 bits": authority(
        rsa.RSAPublicNumbers(
            2**64 + 1, rsa.generate_private_key(65537, 2048).public_key().public_numbers().n
        ).public_key()
    ),
}


def answer(der: bytes) -> bytes:
    x5c = [base64.b64encode(der).decode()]
    return json.dumps({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": x5c}]}).encode()


def test_a_good_one() -> None:
    """An authority that says all of that, and says it well, is taken."""
    assert 1 == len(bundle_fetch._read(PARTNER, answer(GOOD)).x509_authorities)


@pytest.mark.parametrize("odd", ODD)
def test_what_others_could_not_read(odd: str) -> None:
    """A partner's answer with an authority that is malformed in any part is no bundle: the one before stays."""
    with pytest.raises(BundleNotFetched, match="is no bundle: a certificate in x5c") as caught:
        bundle_fetch._read(PARTNER, answer(ODD[odd]))
    assert "invalid_bundle" == caught.value.reason_code
