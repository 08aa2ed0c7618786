"""X.509-SVIDs (X509-SVID.md): the value, and the rules that a leaf and its issuers must keep."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from sojourn.errors import InvalidSpiffeId, InvalidSvid
from sojourn.spiffe.ids import SpiffeId, TrustDomain

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
CHAIN_MAX_CERTIFICATES = 10


@dataclass(frozen=True)
class X509Svid:
    """An X.509-SVID with its private key. `chain` is leaf first, without the root. The repr hides the key."""

    spiffe_id: SpiffeId
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey

    def __repr__(self) -> str:
        return f"X509Svid({self.spiffe_id}, serial={self.serial})"

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def serial(self) -> str:
        """The serial number, lower-case hex."""
        return f"{self.leaf.serial_number:x}"

    @property
    def not_after(self) -> datetime:
        return self.leaf.not_valid_after_utc

    @cached_property
    def chain_der(self) -> bytes:
        """DER certificates, leaf first, one after the other."""
        return b"".join(certificate.public_bytes(Encoding.DER) for certificate in self.chain)

    @cached_property
    def chain_pem(self) -> bytes:
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)

    @cached_property
    def key_der(self) -> bytes:
        """PKCS#8 DER, unencrypted."""
        return self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    @property
    def key_pem(self) -> bytes:
        """PKCS#8 PEM, unencrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def spiffe_id_of(certificate: x509.Certificate) -> SpiffeId:
    """Return the SPIFFE ID in a certificate: its one URI SAN (X509-SVID.md 2). Raise InvalidSvid otherwise."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise InvalidSvid("certificate has no subject alternative name") from None
    except Exception as error:
        raise InvalidSvid("certificate has unreadable extensions", detail=str(error)) from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise InvalidSvid(f"certificate has {len(uris)} URI names, not one")
    try:
        return SpiffeId.parse(uris[0])
    except InvalidSpiffeId as error:
        raise InvalidSvid(f"certificate has an invalid SPIFFE ID: {error.public}") from error


def check_leaf(certificate: x509.Certificate) -> SpiffeId:
    """Return the SPIFFE ID of a leaf that keeps every rule of X509-SVID.md 3 to 5; raise InvalidSvid otherwise."""
    spiffe_id = spiffe_id_of(certificate)
    if not spiffe_id.path:
        raise InvalidSvid("leaf's SPIFFE ID has no path")
    extensions = certificate.extensions
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise InvalidSvid("leaf has the cA flag")
    except x509.ExtensionNotFound:
        pass
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        raise InvalidSvid("leaf has no key usage") from None
    if not usage.critical:
        raise InvalidSvid("leaf's key usage is not critical")
    if not usage.value.digital_signature:
        raise InvalidSvid("leaf's key usage lacks digitalSignature")
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise InvalidSvid("leaf's key usage has keyCertSign or cRLSign")
    try:
        extended = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return spiffe_id
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= extended:
        raise InvalidSvid("leaf's extended key usage lacks serverAuth or clientAuth")
    return spiffe_id


def check_authority(certificate: x509.Certificate, trust_domain: TrustDomain) -> None:
    """Raise InvalidSvid unless a signing certificate keeps X509-SVID.md 3.2 and 4 for `trust_domain`."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound as error:
        raise InvalidSvid("signing certificate lacks basic constraints or key usage") from error
    if not constraints.value.ca or not usage.value.key_cert_sign or not usage.critical:
        raise InvalidSvid("signing certificate lacks cA or keyCertSign, or its key usage is not critical")
    try:
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return
    spiffe_id = spiffe_id_of(certificate)
    if spiffe_id != trust_domain.id:
        raise InvalidSvid("signing certificate's SPIFFE ID is not that of its trust domain")


def verify_chain(
    chain: Sequence[x509.Certificate], authorities: Iterable[x509.Certificate], trust_domain: TrustDomain, now: datetime
) -> SpiffeId:
    """Validate a chain (leaf first) against the bundle of `trust_domain` and return the leaf's SPIFFE ID.

    The SPIFFE ID must lie in `trust_domain`; path validation is RFC 5280's. Raises InvalidSvid.
    """
    if not chain:
        raise InvalidSvid("no certificate")
    if len(chain) > CHAIN_MAX_CERTIFICATES:
        raise InvalidSvid(f"chain is longer than {CHAIN_MAX_CERTIFICATES} certificates")
    spiffe_id = check_leaf(chain[0])
    if spiffe_id.trust_domain != trust_domain:
        raise InvalidSvid(f"{str(spiffe_id)!r} is not a member of trust domain {trust_domain.name!r}")
    roots = list(authorities)
    if not roots:
        raise InvalidSvid(f"no X.509 bundle for trust domain {trust_domain.name!r}")
    try:
        verifier = PolicyBuilder().store(Store(roots)).time(now).build_client_verifier()
        verified = verifier.verify(chain[0], list(chain[1:])).chain
    except VerificationError as error:
        raise InvalidSvid("certificate does not chain to its trust domain's bundle", detail=str(error)) from error
    except Exception as error:
        raise InvalidSvid("certificate chain cannot be validated", detail=str(error)) from error
    for certificate in verified[1:]:
        check_authority(certificate, trust_domain)
    return spiffe_id


def parse_certificates(der: bytes) -> tuple[x509.Certificate, ...]:
    """Parse DER certificates that stand one after the other, as the Workload API sends them. Raise InvalidSvid."""
    found: list[x509.Certificate] = []
    rest = memoryview(der)
    while rest:
        size = _der_length(rest)
        try:
            found.append(x509.load_der_x509_certificate(bytes(rest[:size])))
        except Exception as error:
            raise InvalidSvid("certificate cannot be parsed", detail=str(error)) from error
        rest = rest[size:]
    return tuple(found)


def _der_length(data: memoryview) -> int:
    """Return the size in bytes of the DER SEQUENCE that `data` begins with (X.690, 8.1.3)."""
    if len(data) < 2 or data[0] != 0x30:
        raise InvalidSvid("certificate cannot be parsed: not a DER sequence")
    first = data[1]
    if first < 0x80:
        size = 2 + first
    else:
        octets = first & 0x7F
        if not 1 <= octets <= 4 or len(data) < 2 + octets:
            raise InvalidSvid("certificate cannot be parsed: bad DER length")
        size = 2 + octets + int.from_bytes(data[2 : 2 + octets], "big")
    if size > len(data):
        raise InvalidSvid("certificate cannot be parsed: cut short")
    return size
