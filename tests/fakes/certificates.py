"""Certificates of any make: a good leaf or signing certificate, of which a test changes what it likes."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
WEB = "spiffe://example.org/web"
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
KEY = ec.generate_private_key(ec.SECP256R1())  # of all leaves; making keys is slow


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    @property
    def der(self):
        return self.certificate.public_bytes(Encoding.DER)


def usage(*names):
    return x509.KeyUsage(**{each: each in names for each in USAGES})


def san(*uris, dns=()):
    return x509.SubjectAlternativeName([*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)])


def raw_san(*uris: bytes):
    """A subject alternative name with URI names of any bytes at all."""
    names = b"".join(b"\x86" + length(uri) + uri for uri in uris)
    return x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30" + length(names) + names)


def length(data):
    size = len(data)
    return bytes([size]) if size < 128 else bytes([0x82, size >> 8, size & 0xFF])


LEAF = {
    "san": (san(WEB), False),
    "constraints": (x509.BasicConstraints(ca=False, path_length=None), True),
    "usage": (usage("digital_signature"), True),
    "extended": (x509.ExtendedKeyUsage([SERVER, CLIENT]), False),
}
AUTHORITY = {
    "san": (san("spiffe://example.org"), False),
    "constraints": (x509.BasicConstraints(ca=True, path_length=None), True),
    "usage": (usage("key_cert_sign", "crl_sign"), True),
}


def issue(
    issuer=None,
    base=LEAF,
    *,
    subject="web",
    key=None,
    begins=NOW - timedelta(hours=1),
    ends=NOW + timedelta(hours=1),
    serial=None,
    digest=None,
    **changes,
):
    """Issue a certificate under `issuer`, or under its own key. `changes` replace extensions of `base` by name; None leaves one out."""
    key = key or KEY
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else [])
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    extensions = {
        **base,
        "subject_key": (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        "issuer_key": (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
        **changes,
    }
    for extension in extensions.values():
        if extension is not None:
            builder = builder.add_extension(*extension)
    return Issued(builder.sign(signer, digest or hashes.SHA256()), key)


def authority(issuer=None, *, subject="root", key=None, **changes):
    """A signing certificate: a root, or one under `issuer`. `changes` as for `issue`."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    return issue(issuer, AUTHORITY, subject=subject, key=key, **changes)
