"""A tiny SPIFFE CA: a root that is its trust domain's SVID, an intermediate, and leaves."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import X509Svid


@dataclass(frozen=True)
class FakeCa:
    """One trust domain. `leaf` makes SVIDs by its intermediate."""

    trust_domain: TrustDomain
    root: x509.Certificate
    intermediate: x509.Certificate
    intermediate_key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, trust_domain: str = "example.org") -> "FakeCa":
        root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        uri = f"spiffe://{trust_domain}"
        name = _name(f"{trust_domain} root")
        root = _authority(name, name, uri, root_key, root_key, root_key, None)
        intermediate = _authority(_name(f"{trust_domain} node"), name, uri, key, root_key, root_key, 0)
        return cls(TrustDomain.parse(trust_domain), root, intermediate, key)

    @property
    def root_der(self) -> bytes:
        return self.root.public_bytes(Encoding.DER)

    def svid(self, path: str = "/web", *, ends_in: timedelta = timedelta(hours=1), **changes: object) -> X509Svid:
        """An X.509-SVID. `uri` overrides its SPIFFE ID, `usage=False` leaves out the key usage, `dns` is a name more."""
        key = ec.generate_private_key(ec.SECP256R1())
        uri = str(changes.get("uri", f"spiffe://{self.trust_domain}{path}"))
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
        if "dns" in changes:
            names.append(x509.DNSName(str(changes["dns"])))
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name("workload"))
            .issuer_name(self.intermediate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + ends_in)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(_issuer_id(self.intermediate_key), critical=False)
        )
        if changes.get("usage", True):
            builder = builder.add_extension(_usage(digital_signature=True), critical=True)
        leaf = builder.sign(self.intermediate_key, hashes.SHA256())
        return X509Svid(SpiffeId.parse(uri), (leaf, self.intermediate), key)

    def crl(self, *revoked: X509Svid) -> bytes:
        """A revocation list of this intermediate, DER."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.intermediate.subject)
            .last_update(now)
            .next_update(now + timedelta(hours=1))
        )
        for svid in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(svid.leaf.serial_number).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.intermediate_key, hashes.SHA256()).public_bytes(Encoding.DER)


_MALFORMED = x509.UnrecognizedExtension(ExtensionOID.AUTHORITY_KEY_IDENTIFIER, b"\xff\xff")


def odd_certificate(malformed: x509.UnrecognizedExtension = _MALFORMED) -> x509.Certificate:
    """One that leads nowhere, and has no extension but a malformed one."""
    key, now, name = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC), _name("odd")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(malformed, critical=False)
        .sign(key, hashes.SHA256())
    )


def _authority(
    subject: x509.Name,
    issuer: x509.Name,
    uri: str,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    path_length: int | None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_issuer_id(issuer_key), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _usage(**on: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: on.get(name, False) for name in names})


def _issuer_id(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
