"""Whether the signature of a time stamp is one to rely on: strong, and of the certificate that it names itself.

That it is good, and leads to a root, is verified before. RFC 5652 has what is read (CMS), RFC 5816 and RFC 5035 how a
stamp says by which certificate it is: else whoever gets another certificate for the same key could pass it for theirs.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sojourn.errors import InvalidInput

_OID: Final = x509.ObjectIdentifier
_SHA_2: Final[dict[x509.ObjectIdentifier, Callable[[bytes], Any]]] = {
    _OID("2.16.840.1.101.3.4.2.1"): hashlib.sha256,
    _OID("2.16.840.1.101.3.4.2.2"): hashlib.sha384,
    _OID("2.16.840.1.101.3.4.2.3"): hashlib.sha512,
}
_SIGNATURES: Final = {
    _OID("1.2.840.113549.1.1.1"),  # RSA, with the digest that stands by itself
    *(_OID(f"1.2.840.113549.1.1.{each}") for each in (11, 12, 13)),  # RSA with SHA-256, SHA-384, SHA-512
    *(_OID(f"1.2.840.10045.4.3.{each}") for each in (2, 3, 4)),  # ECDSA with these
}
_CERTIFICATE_V1: Final = _OID("1.2.840.113549.1.9.16.2.12")  # by SHA-1
_CERTIFICATE_V2: Final = _OID("1.2.840.113549.1.9.16.2.47")
_RSA_BITS, _EC_BITS = 2048, 256


@asn1.sequence
class _Attribute:
    kind: x509.ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class _Signer:
    version: int
    sid: asn1.TLV
    digest: list[asn1.TLV]
    attributes: Annotated[asn1.SetOf[_Attribute] | None, asn1.Implicit(0)]
    algorithm: list[asn1.TLV]
    signature: bytes
    unsigned: Annotated[asn1.SetOf[_Attribute] | None, asn1.Implicit(1)]


@asn1.sequence
class _SignedData:
    version: int
    digests: asn1.SetOf[asn1.TLV]
    content: asn1.TLV
    certificates: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(0)]
    crls: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(1)]
    signers: asn1.SetOf[_Signer]


@asn1.sequence
class _Token:
    kind: x509.ObjectIdentifier
    content: Annotated[asn1.TLV, asn1.Explicit(0)]


@asn1.sequence
class _CertificateId:
    algorithm: list[asn1.TLV] | None  # of version 2 alone, where SHA-256 goes without saying
    digest: bytes
    issuer: list[asn1.TLV] | None


@asn1.sequence
class _Certificates:
    ids: list[_CertificateId]
    policies: list[asn1.TLV] | None


def check_signer(token: bytes, certificates: Iterable[bytes], issuer: x509.Name, serial: int) -> None:
    """Look at the one signature of a token, DER, by the certificate of this issuer and number. Raise InvalidInput."""
    try:
        [signer] = asn1.decode_der(_Token, token).content.parse(_SignedData).signers.as_list()
        found = [(each, x509.load_der_x509_certificate(each)) for each in certificates]
        [(octets, leaf)] = [
            (each, made) for each, made in found if (made.issuer, made.serial_number) == (issuer, serial)
        ]
        digest, algorithm = _algorithm(signer.digest), _algorithm(signer.algorithm)
        named = [_is_of(each, octets) for each in _named_by(signer)]
    except (ValueError, TypeError, IndexError) as error:
        raise InvalidInput("the stamp's signature cannot be read") from error
    if digest not in _SHA_2 or algorithm not in _SIGNATURES:
        raise InvalidInput("the stamp is not signed with SHA-256, SHA-384 or SHA-512, by RSA or ECDSA")
    _check_certificate(leaf)
    if not named:
        raise InvalidInput("the stamp's signature does not say by which certificate it is (RFC 5816)")
    if not all(named):
        raise InvalidInput("the stamp's signature is said to be by another certificate (RFC 5816)")


def _check_certificate(leaf: x509.Certificate) -> None:
    key, digest = leaf.public_key(), leaf.signature_hash_algorithm
    strong = (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_BITS) or (
        isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= _EC_BITS
    )
    if not strong:
        raise InvalidInput(f"the authority's key is none of RSA from {_RSA_BITS} bits or EC from {_EC_BITS}")
    if digest is not None and digest.name not in {"sha256", "sha384", "sha512"}:
        raise InvalidInput("the authority's certificate is not signed with SHA-256, SHA-384 or SHA-512")


def _algorithm(parts: list[asn1.TLV]) -> x509.ObjectIdentifier:
    found: x509.ObjectIdentifier = parts[0].parse(x509.ObjectIdentifier)
    return found


def _named_by(signer: _Signer) -> list[tuple[x509.ObjectIdentifier, _CertificateId]]:
    """What names the signer's certificate, by its kind, and is signed itself: the first ID of each is the signer's."""
    attributes = [] if signer.attributes is None else signer.attributes.as_list()
    found = []
    for each in attributes:
        if each.kind in {_CERTIFICATE_V1, _CERTIFICATE_V2}:
            [value] = each.values.as_list()
            found.append((each.kind, value.parse(_Certificates).ids[0]))
    return found


def _is_of(named: tuple[x509.ObjectIdentifier, _CertificateId], certificate: bytes) -> bool:
    kind, found = named
    if kind == _CERTIFICATE_V1:
        return found.algorithm is None and found.digest == hashlib.sha1(certificate, usedforsecurity=False).digest()
    by = hashlib.sha256 if found.algorithm is None else _SHA_2.get(_algorithm(found.algorithm))
    return by is not None and found.digest == by(certificate).digest()
