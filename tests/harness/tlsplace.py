"""A certificate authority of a test's own, and a server's certificate of it."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


class TlsPlace:
    """Files: `ca`, the authority; `chain` and `key` of a server that is localhost and 127.0.0.1.

    `name`: what it is instead. `ends_in`: its certificate's remaining life; below 0 it is over. `common_name`: its
    subject, by which a kubelet knows a client.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "",
        ends_in: dt.timedelta = dt.timedelta(days=1),
        common_name: str = "localhost",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca, self.chain, self.key = folder / "ca.pem", folder / "chain.pem", folder / "key.pem"
        authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        names: list[x509.GeneralName] = (
            [x509.DNSName(name)]
            if name
            else [
                x509.DNSName("localhost"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            ]
        )
        authority = _builder("test authority", authority_key.public_key(), "test authority").add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        public = authority_key.public_key()
        authority = authority.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        authority = authority.add_extension(_SIGNS, critical=True)
        signed = authority.sign(authority_key, SHA256())
        leaf = _builder(common_name, key.public_key(), "test authority", ends_in)
        leaf = leaf.add_extension(x509.SubjectAlternativeName(names), critical=False)
        leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        self.ca.write_bytes(signed.public_bytes(Encoding.PEM))
        self.chain.write_bytes(leaf.sign(authority_key, SHA256()).public_bytes(Encoding.PEM))
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _builder(
    subject: str, key: ec.EllipticCurvePublicKey, issuer: str, ends_in: dt.timedelta = dt.timedelta(days=1)
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=2))
        .not_valid_after(now + ends_in)
    )
