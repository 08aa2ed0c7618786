"""Certificates as X509-SVID.md wants them: what is put together here is linted before a real key signs it."""

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sojourn.errors import Bug, Unavailable
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import check_authority, check_leaf

_TEST: Final = b"sojourn: a test of a root's key, and nothing else\n"  # no DER begins with these octets
TEST_NONCE_BYTES: Final = 32
_THROW_AWAY = ec.generate_private_key(ec.SECP256R1())  # signs what the linter looks at, and nothing else
_NAMED_HEX = 12  # digits of a key identifier that stand in the name of its authority
_ORGANIZATION = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sojourn")


class Signer:
    """A signing certificate and its key, held in memory. The repr hides the key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key
        self._draft_key = ec.generate_private_key(key.curve)  # signs what the linter looks at, and nothing else
        self._key_identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        )

    def __repr__(self) -> str:
        return f"Signer({self.certificate.subject.rfc4514_string()})"

    @property
    def id(self) -> str:
        """The subject key identifier, lower-case hex."""
        return key_id(self.certificate)

    def sign_test(self, nonce: bytes) -> bytes:
        """Sign a text that no certificate, list or token can be: see `check_test`. Raise KeysUnavailable if the key is
        in a token that does not sign.
        """
        return self._key.sign(_TEST + nonce, ec.ECDSA(_digest(self._key)))

    def sign_leaf(
        self,
        spiffe_id: SpiffeId,
        public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        *,
        not_before: datetime,
        not_after: datetime,
        dns_names: Sequence[str] = (),
        serial: int | None = None,
    ) -> x509.Certificate:
        """Sign a leaf for `spiffe_id` and nothing else; its life is clipped to this certificate's."""
        subject = [_ORGANIZATION]
        if dns_names:
            subject.append(x509.NameAttribute(NameOID.COMMON_NAME, dns_names[0][:64]))
        names = [x509.UniformResourceIdentifier(str(spiffe_id)), *(x509.DNSName(name) for name in dns_names)]
        builder = (
            self._builder(x509.Name(subject), public_key, not_before, not_after, serial)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        draft = builder.sign(self._draft_key, _digest(self._key))
        if check_leaf(draft) != spiffe_id:
            raise Bug("a leaf would have had another SPIFFE ID than its entry's")
        return self._signed_anew(draft)

    def _signed_anew(self, draft: x509.Certificate) -> x509.Certificate:
        """The certificate of the very bytes that the linter has read (RFC 5280, 4.1), with this key's signature."""
        content, whole = draft.tbs_certificate_bytes, draft.public_bytes(Encoding.DER)
        after = whole[whole.index(content) + len(content) :]
        algorithm = after[: 2 + after[1]]  # the same: both keys are of one curve
        signature = self._key.sign(content, ec.ECDSA(_digest(self._key)))
        return x509.load_der_x509_certificate(_der(0x30, content + algorithm + _der(0x03, b"\0" + signature)))

    def sign_authority(
        self,
        trust_domain: TrustDomain,
        public_key: ec.EllipticCurvePublicKey,
        not_before: datetime,
        not_after: datetime,
    ) -> x509.Certificate:
        """Sign an intermediate that may sign leaves; its life is clipped to this certificate's."""
        name = issuer_name(trust_domain, x509.SubjectKeyIdentifier.from_public_key(public_key).digest)
        builder = _authority(self._builder(name, public_key, not_before, not_after), trust_domain, path_length=0)
        check_authority(builder.sign(_THROW_AWAY, hashes.SHA256()), trust_domain)
        return builder.sign(self._key, _digest(self._key))

    def sign_crl(self, builder: x509.CertificateRevocationListBuilder) -> x509.CertificateRevocationList:
        """Sign a list of revoked certificates in this certificate's name."""
        named = builder.issuer_name(self.certificate.subject).add_extension(self._key_identifier, critical=False)
        return named.sign(self._key, _digest(self._key))

    def _builder(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        not_before: datetime,
        not_after: datetime,
        serial: int | None = None,
    ) -> x509.CertificateBuilder:
        issuer = self.certificate
        not_before = max(not_before, issuer.not_valid_before_utc)
        # Certificates count in whole seconds: none is shorter than it was asked for, if its issuer allows.
        not_after = min(
            not_after + timedelta(microseconds=-not_after.microsecond % 1_000_000), issuer.not_valid_after_utc
        )
        if not_after <= not_before:
            raise Unavailable("the signing certificate is not valid at this time: is the clock right?")
        return (
            x509.CertificateBuilder()
            .serial_number(serial or _serial())
            .issuer_name(issuer.subject)
            .subject_name(subject)
            .public_key(public_key)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._key_identifier, critical=False)
        )


def self_sign(
    trust_domain: TrustDomain, key: ec.EllipticCurvePrivateKey, not_before: datetime, not_after: datetime
) -> x509.Certificate:
    """Make the root certificate of a trust domain."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = _authority_name(trust_domain, "root", identifier.digest)
    builder = _authority(
        x509.CertificateBuilder()
        .serial_number(_serial())
        .issuer_name(name)
        .subject_name(name)
        .public_key(key.public_key())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False),
        trust_domain,
        path_length=1,
    )
    check_authority(builder.sign(_THROW_AWAY, hashes.SHA256()), trust_domain)
    return builder.sign(key, _digest(key))


def authority_request(trust_domain: TrustDomain, key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    """Ask for an intermediate that may sign leaves, as PKCS#10 (RFC 2986)."""
    name = issuer_name(trust_domain, x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest)
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension, critical in _authority_extensions(trust_domain, path_length=0):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, _digest(key))


def check_test(certificate: x509.Certificate, nonce: bytes, signature: bytes) -> None:
    """Raise InvalidSignature unless it was made by `sign_test` of the certificate's key."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidSignature
    key.verify(signature, _TEST + nonce, ec.ECDSA(_digest(key)))


def key_id(certificate: x509.Certificate) -> str:
    """The subject key identifier of a signing certificate, lower-case hex."""
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()


def signer_id(certificate: x509.Certificate) -> str:
    """The subject key identifier of what signed a certificate, lower-case hex."""
    identifier = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return (identifier or b"").hex()


def known_key_id(certificate: x509.Certificate) -> str:
    """As `key_id`; empty if the certificate does not say it, or not so that it can be read."""
    return _known(key_id, certificate)


def known_signer_id(certificate: x509.Certificate) -> str:
    """As `signer_id`; empty if the certificate does not say it, or not so that it can be read."""
    return _known(signer_id, certificate)


def _known(read: Callable[[x509.Certificate], str], certificate: x509.Certificate) -> str:
    try:
        return read(certificate)
    except Exception:  # noqa: BLE001  # what somebody else has signed may be malformed in many ways
        return ""


def issuer_name(trust_domain: TrustDomain, identifier: bytes) -> x509.Name:
    """The name of the intermediate with this subject key identifier."""
    return _authority_name(trust_domain, "issuer", identifier)


def is_issuer_name(trust_domain: TrustDomain, name: x509.Name) -> bool:
    """Whether an intermediate of this trust domain may have this name."""
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    identifier = str(common[0].value).rpartition(" ")[2] if common else ""
    if len(identifier) != _NAMED_HEX or set(identifier) - set("0123456789abcdef"):
        return False
    return name == issuer_name(trust_domain, bytes.fromhex(identifier))


def _authority_name(trust_domain: TrustDomain, what: str, identifier: bytes) -> x509.Name:
    # The key identifier keeps the names of old and new authorities apart: verifiers look issuers up by name.
    common = f"{trust_domain.name[:40]} {what} {identifier.hex()[:_NAMED_HEX]}"
    return x509.Name([_ORGANIZATION, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _authority(
    builder: x509.CertificateBuilder, trust_domain: TrustDomain, *, path_length: int
) -> x509.CertificateBuilder:
    for extension, critical in _authority_extensions(trust_domain, path_length=path_length):
        builder = builder.add_extension(extension, critical=critical)
    return builder


def _authority_extensions(
    trust_domain: TrustDomain, *, path_length: int
) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    """What makes a certificate a signing one, and whether each is critical."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(trust_domain.id))])
    return (
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (_usage(signs_certificates=True), True),
        (names, False),
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _digest(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> hashes.SHA256 | hashes.SHA384:
    """A digest as strong as the key."""
    return hashes.SHA384() if key.curve.key_size > 256 else hashes.SHA256()


def _der(tag: int, content: bytes) -> bytes:
    """One DER value (X.690, 8.1): a SEQUENCE (0x30) or a BIT STRING (0x03)."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(octets))) + octets + content


def _serial() -> int:
    return secrets.randbits(127) | 1 << 126  # positive, of one length, 126 random bits
