"""X.509-SVIDs (X509-SVID.md): the value, and the rules that a leaf and its issuers must keep."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from sojourn.errors import InvalidSpiffeId, InvalidSvid
from sojourn.spiffe.ids import SpiffeId, TrustDomain

ExtensionType = TypeVar("ExtensionType", bound=x509.ExtensionType)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
DER = Encoding.DER
CHAIN_MAX_CERTIFICATES = 10
RSA_MIN_BITS = 2048
RSA_MAX_BITS = 8192  # checking by a larger one costs too much; Go takes no larger one either
_BOTH_PURPOSES = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
# X509-SVID.md 4.4: the extended key usage may be critical or not; what is in it is checked by check_leaf.
_LEAF_POLICY = ExtensionPolicy.webpki_defaults_ee().may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)


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

    @cached_property
    def serial(self) -> str:
        """The serial number, lower-case hex."""
        return f"{self.leaf.serial_number:x}"

    @cached_property
    def not_before(self) -> datetime:
        return self.leaf.not_valid_before_utc

    @cached_property
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
    uris = _uris(certificate)
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
    _check_key(certificate)
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        raise InvalidSvid("leaf has the cA flag")
    usage = _extension(certificate, x509.KeyUsage)
    if usage is None:
        raise InvalidSvid("leaf has no key usage")
    if not usage.critical:
        raise InvalidSvid("leaf's key usage is not critical")
    if not usage.value.digital_signature:
        raise InvalidSvid("leaf's key usage lacks digitalSignature")
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise InvalidSvid("leaf's key usage has keyCertSign or cRLSign")
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    if extended is not None and not _BOTH_PURPOSES.issubset(extended.value):
        raise InvalidSvid("leaf's extended key usage lacks serverAuth or clientAuth")
    return spiffe_id


def check_authority(certificate: x509.Certificate, trust_domain: TrustDomain) -> None:
    """Raise InvalidSvid unless a signing certificate keeps X509-SVID.md 3.2 and 4 for `trust_domain`."""
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    if constraints is None or usage is None:
        raise InvalidSvid("signing certificate lacks basic constraints or key usage")
    if not constraints.value.ca or not usage.value.key_cert_sign or not usage.critical:
        raise InvalidSvid("signing certificate lacks cA or keyCertSign, or its key usage is not critical")
    if _extension(certificate, x509.SubjectAlternativeName) is None or not _uris(certificate):
        return  # it need not have a SPIFFE ID (X509-SVID.md 3.2)
    if spiffe_id_of(certificate) != trust_domain.id:
        raise InvalidSvid("signing certificate's SPIFFE ID is not that of its trust domain")


def _uris(certificate: x509.Certificate) -> list[str]:
    names = _extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        raise InvalidSvid("certificate has no subject alternative name")
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _extension(certificate: x509.Certificate, kind: type[ExtensionType]) -> x509.Extension[ExtensionType] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
    except Exception as error:
        raise InvalidSvid("certificate has unreadable extensions", detail=str(error)) from error


def _check_key(certificate: x509.Certificate) -> None:
    try:
        key = certificate.public_key()
    except Exception as error:
        raise InvalidSvid("certificate's key cannot be parsed", detail=str(error)) from error
    check_key(key)


def check_key(key: object) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """Return a public key that a leaf may have: RSA of 2048 to 8192 bits, or P-256, P-384, P-521. Raise InvalidSvid."""
    if isinstance(key, rsa.RSAPublicKey) and RSA_MIN_BITS <= key.key_size <= RSA_MAX_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise InvalidSvid("leaf's key is of a kind or size that is not accepted")


def verify_chain(
    chain: Sequence[x509.Certificate], authorities: Iterable[x509.Certificate], trust_domain: TrustDomain, now: datetime
) -> SpiffeId:
    """Validate a chain (leaf first) against the bundle of `trust_domain` and return the leaf's SPIFFE ID.

    The SPIFFE ID must lie in `trust_domain`; path validation is RFC 5280's. Raises InvalidSvid. The chain may have
    certificates that nothing was verified of: `verify_path` leaves them out.
    """
    return verify_path(chain, authorities, trust_domain, now)[0]


def verify_path(
    chain: Sequence[x509.Certificate], authorities: Iterable[x509.Certificate], trust_domain: TrustDomain, now: datetime
) -> tuple[SpiffeId, tuple[x509.Certificate, ...]]:
    """The same, and what of the chain leads from the leaf to an authority, in this order and without a root."""
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
        verifier = (
            PolicyBuilder()
            .store(Store(roots))
            .time(now)
            .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=_LEAF_POLICY)
            .build_client_verifier()
        )
        verified = verifier.verify(chain[0], list(chain[1:])).chain
    except VerificationError as error:
        raise InvalidSvid("certificate does not chain to its trust domain's bundle", detail=str(error)) from error
    except Exception as error:
        raise InvalidSvid("certificate chain cannot be validated", detail=str(error)) from error
    # A leaf that lies in the bundle itself is no authority, and vouches for nobody, itself included.
    for certificate in verified[1:] or verified:
        check_authority(certificate, trust_domain)
    authority = verified[-1]
    led = verified[:-1] if authority.issuer == authority.subject else verified
    return spiffe_id, tuple(each for each in led if each in chain)


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether a certificate names an issuer and has its signature. What cannot be told is no."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001  # what somebody else has signed may be malformed in many ways
        return False
    return True


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
    """Return the size in bytes of the certificate that `data` begins with. Raise InvalidSvid if none does.

    Its length is in the long form (X.690, 8.1.3.5), because no certificate is shorter than 128 bytes.
    """
    if data[0] != 0x30:
        raise InvalidSvid("certificate cannot be parsed: not a DER sequence")
    head = 2 + (int.from_bytes(data[1:2]) & 0x7F)
    size = head + int.from_bytes(data[2:head])
    if size > len(data):
        raise InvalidSvid("certificate cannot be parsed: cut short")
    return size
