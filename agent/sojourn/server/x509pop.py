"""The attestor `x509pop`: a node proves that it has the key of a certificate that the operator's authority has signed.

Messages are SPIRE's: JSON, in which bytes are base64 (RFC 4648, 4).
"""

import hashlib
import json
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from sojourn.attestation.selectors import Selector
from sojourn.errors import InvalidConfig, InvalidInput, Refused, SojournError
from sojourn.files import trusted
from sojourn.limits import (
    PEM_MAX_BYTES,
    X509POP_INTERMEDIATES,
    X509POP_PAYLOAD_MAX_BYTES,
    X509POP_RSA_MAX_BITS,
)
from sojourn.runtime.clock import Clock
from sojourn.server.node_attestor import Attested, Challenge, node_id
from sojourn.spiffe.ids import TrustDomain

_NONCE_BYTES: Final = 32
# Certificates of machines are made in many ways: what has to be in them is looked at here, and not by the Web's rules.
_MACHINES: Final = ExtensionPolicy.permit_all()
_AUTHORITIES: Final = _MACHINES.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
_RSA, _EC = "rsa_signature", "ecdsa_signature"
_NAMED: Final = re.compile(r"x509pop://(?P<domain>[^/]+)/(?P<key>[^/]+)/(?P<value>.+)")  # URI names that are selectors


class X509Pop:
    """Nodes whose certificates these authorities have signed."""

    type = "x509pop"

    def __init__(self, authorities: Sequence[x509.Certificate], trust_domain: TrustDomain, clock: Clock) -> None:
        self._authorities = tuple(authorities)
        self._trust_domain = trust_domain
        self._clock = clock

    @classmethod
    def of_file(cls, path: Path, trust_domain: TrustDomain, clock: Clock) -> "X509Pop":
        """Trust the authorities of a PEM file. Raise InvalidConfig if others could write it, or it holds none."""
        try:
            return cls(x509.load_pem_x509_certificates(trusted.read(path, PEM_MAX_BYTES).encode()), trust_domain, clock)
        except (InvalidInput, ValueError) as error:
            why = error.public if isinstance(error, SojournError) else "it holds no certificates in PEM"
            raise InvalidConfig([f"node_attestors.x509pop.ca: {str(path)!r}: {why}"]) from error

    async def attest(self, payload: bytes, challenge: Challenge) -> Attested:
        """Raise InvalidInput for what cannot be read, Refused for what does not prove anything."""
        leaf, rest = _read(payload)
        path = self._path(leaf, rest)
        theirs = os.urandom(_NONCE_BYTES)
        key = leaf.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            asked: dict[str, Any] = {_RSA: {"nonce": _b64(theirs)}, _EC: None}
        elif isinstance(key, ec.EllipticCurvePublicKey):
            asked = {_RSA: None, _EC: {"nonce": _b64(theirs)}}
        else:
            raise InvalidInput("unable to generate challenge: unsupported public key type")
        answer = await challenge(json.dumps(asked).encode())
        _check_answer(key, theirs, answer)
        name = hashlib.sha1(leaf.public_bytes(Encoding.DER), usedforsecurity=False).hexdigest()
        return Attested(node_id(self._trust_domain, self.type, name), self._selectors(leaf, path), reattestable=True)

    def _path(self, leaf: x509.Certificate, rest: Sequence[x509.Certificate]) -> Sequence[x509.Certificate]:
        """The authorities by which a leaf is good, from the one that signed it on. Raise Refused."""
        now = self._clock.now()
        try:
            verifier = (
                PolicyBuilder()
                .store(Store(list(self._authorities)))
                .time(now)
                .max_chain_depth(X509POP_INTERMEDIATES)
                .extension_policies(ca_policy=_AUTHORITIES, ee_policy=_MACHINES)
                .build_client_verifier()
            )
            path = verifier.verify(leaf, list(rest)).chain[1:]
            for each in path:
                _check_signs(each)
        except VerificationError as error:
            raise Refused("certificate verification failed: it is not signed by an authority of this server's",
                          detail=str(error)) from error  # fmt: skip
        except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
            raise Refused("certificate verification failed: it cannot be read", detail=str(error)) from error
        _check_times((leaf, *path), now)
        return path

    def _selectors(self, leaf: x509.Certificate, path: Sequence[x509.Certificate]) -> frozenset[Selector]:
        values = [f"serialnumber:{_hex(leaf.serial_number)}"]
        names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if names and names[-1].value:
            values.append(f"subject:cn:{names[-1].value!s}")
        for each in path:
            print_ = hashlib.sha1(each.public_bytes(Encoding.DER), usedforsecurity=False).hexdigest()
            values.append(f"ca:fingerprint:{print_}")
        for uri in _uris(leaf):
            found = _NAMED.fullmatch(uri)
            if found is not None and found["domain"] == self._trust_domain.name:
                values.append(f"san:{found['key']}:{found['value']}")
        return frozenset(Selector.from_parts(self.type, each) for each in values)


def _read(payload: bytes) -> tuple[x509.Certificate, list[x509.Certificate]]:
    """The leaf that a node shows, and the intermediates. Raise InvalidInput."""
    if len(payload) > X509POP_PAYLOAD_MAX_BYTES:
        raise InvalidInput("failed to unmarshal data: it is too large")
    given = _json(payload, "failed to unmarshal data").get("certificates")
    if not isinstance(given, list) or not given:
        raise InvalidInput("no certificate to attest")
    if len(given) - 1 > X509POP_INTERMEDIATES:
        raise InvalidInput("too many intermediate certificates")
    chain = []
    for number, each in enumerate(given):
        what = (
            f"unable to parse intermediate certificate {number - 1}" if number else "unable to parse leaf certificate"
        )
        try:
            certificate = x509.load_der_x509_certificate(b64decode(each, validate=True))
            key = certificate.public_key()
        except Exception as error:  # hostile input: whatever the library raises
            raise InvalidInput(what, detail=str(error)) from error
        if isinstance(key, rsa.RSAPublicKey) and key.key_size > X509POP_RSA_MAX_BITS:
            raise InvalidInput(f"{what}: its RSA key has more than {X509POP_RSA_MAX_BITS} bits")
        chain.append(certificate)
    leaf = chain[0]
    if not _usage(leaf, "digital_signature"):
        raise InvalidInput("leaf certificate not intended for digital signature use")
    return leaf, chain[1:]


def _check_answer(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, theirs: bytes, answer: bytes) -> None:
    """Raise InvalidInput if the answer to a challenge cannot be read, Refused if it proves nothing."""
    kind = _RSA if isinstance(key, rsa.RSAPublicKey) else _EC
    said = _json(answer, "unable to unmarshal challenge response").get(kind)
    if not isinstance(said, dict):
        raise Refused(f"challenge response verification failed: {kind} is missing")
    ours = _bytes(said, "nonce")
    if len(ours) != _NONCE_BYTES:
        raise Refused("challenge response verification failed: the nonce is not of 32 bytes")
    digest = hashlib.sha256(theirs + ours).digest()
    hashed = Prehashed(hashes.SHA256())
    try:
        if isinstance(key, rsa.RSAPublicKey):
            salted = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
            key.verify(_bytes(said, "signature"), digest, salted, hashed)
        else:
            r, s = (int.from_bytes(_bytes(said, each), "big") for each in ("r", "s"))
            key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(hashed))
    except (InvalidSignature, ValueError) as error:
        raise Refused("challenge response verification failed: the signature is not good") from error


def _json(content: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{what}: it is not JSON") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{what}: it is no JSON object")
    return found


def _bytes(said: dict[str, Any], name: str) -> bytes:
    try:
        return b64decode(said[name], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"unable to unmarshal challenge response: {name} is not base64") from error


def _check_signs(certificate: x509.Certificate) -> None:
    """Raise ValueError for a certificate of a path that may sign no others."""
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    if not constraints.ca or not _usage(certificate, "key_cert_sign", absent=True):
        raise ValueError("a certificate of the path is no authority")


def _check_times(path: Sequence[x509.Certificate], now: datetime) -> None:
    if any(not each.not_valid_before_utc <= now <= each.not_valid_after_utc for each in path):
        raise Refused("certificate verification failed: a certificate has expired, or is not valid yet")


def _usage(certificate: x509.Certificate, name: str, *, absent: bool = False) -> bool:
    """Whether a certificate's key may be used for something; `absent`: what it is if the certificate does not say."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return absent
    except ValueError as error:
        raise InvalidInput("unable to parse leaf certificate: its extensions cannot be read") from error
    return bool(getattr(usage, name))


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _hex(number: int) -> str:
    """A serial number as whole bytes, lower-case hex."""
    return number.to_bytes((number.bit_length() + 7) // 8 or 1, "big").hex()


def _b64(content: bytes) -> str:
    return b64encode(content).decode()
