"""An authority that signs what it is asked for, by which the outside of a test does what an outside system would."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

LIFE = timedelta(days=365)


class SigningAuthority:
    """A root, or what stands below another authority."""

    def __init__(self, name: str = "company", above: "SigningAuthority | None" = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._above = above
        now = datetime.now(UTC)
        named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = self if above is None else above
        builder = (
            x509.CertificateBuilder()
            .subject_name(named)
            .issuer_name(named if above is None else above.certificate.subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_signed_by(signer), critical=False)
        )
        self.certificate: x509.Certificate = builder.sign(signer._key, hashes.SHA256())

    @property
    def line(self) -> tuple[x509.Certificate, ...]:
        """Its certificate, those above it, and the root."""
        return (self.certificate, *(() if self._above is None else self._above.line))

    @property
    def root(self) -> x509.Certificate:
        return self.line[-1]

    @property
    def pem(self) -> str:
        """Its certificate in PEM."""
        return pem(self.certificate)

    @property
    def line_pem(self) -> str:
        """That of `line`."""
        return pem(*self.line)

    def sign(self, request: bytes, ends: datetime) -> x509.Certificate:
        """An authority below it, of path length 0, for a request in PEM, from now to `ends`, with its URI."""
        asked = x509.load_pem_x509_csr(request)
        key = asked.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # what the agent asks for
        builder = (
            x509.CertificateBuilder()
            .subject_name(asked.subject)
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(minutes=1))
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(_signed_by(self), critical=False)
            .add_extension(
                asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value,
                critical=not asked.subject.rdns,
            )
        )
        return builder.sign(self._key, hashes.SHA256())


def pem(*certificates: x509.Certificate) -> str:
    """Certificates in PEM, one after the other."""
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in certificates)


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(False, False, False, False, False, True, True, False, False)


def _signed_by(signer: SigningAuthority) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer._key.public_key())
