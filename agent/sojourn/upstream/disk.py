"""An operator's intermediate authority whose key is a file here. The files are followed: when they are replaced, in any
order, the old ones count until the new ones belong together.
"""

import asyncio
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sojourn.authority.root_signer import SignedIntermediate
from sojourn.authority.upstream import Standing
from sojourn.errors import InvalidInput, UpstreamNotGood
from sojourn.files import trusted
from sojourn.limits import NOT_BEFORE_SLACK_SECONDS, UPSTREAM_FILE_MAX_BYTES
from sojourn.runtime.clock import Clock
from sojourn.settings.upstream import UpstreamAuthorityConfig
from sojourn.spiffe.x509svid import is_issued_by

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_SLACK: Final = timedelta(seconds=NOT_BEFORE_SLACK_SECONDS)


@dataclass(frozen=True, slots=True)
class _Files:
    """What the files have, which belongs together. `chain`: the certificate that signs first, without the root."""

    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)


class DiskUpstream:
    """Signs by the key in a file."""

    kind = "disk"

    def __init__(self, config: UpstreamAuthorityConfig, clock: Clock) -> None:
        # Without them the configuration would have been refused.
        self._certificate, self._key = cast(Path, config.certificate), cast(Path, config.key)
        self._roots = cast(Path, config.roots)
        self._clock = clock
        self._files: _Files | None = None
        self._turn = asyncio.Lock()

    async def sign(self, csr: x509.CertificateSigningRequest, ttl: timedelta) -> SignedIntermediate:
        """Raise UpstreamNotGood if there are no files that belong together, and never were."""
        await self.look()
        assert self._files is not None  # or it raises
        signed = await asyncio.to_thread(self._sign, self._files, csr, ttl)
        return SignedIntermediate((signed, *self._files.chain), self._files.roots)

    async def look(self) -> Standing:
        """Read the files. Raise UpstreamNotGood if they cannot be used, and never could."""
        caution = ""
        async with self._turn:
            try:
                self._files = await asyncio.to_thread(self._read)
            except UpstreamNotGood as error:
                if self._files is None:
                    raise
                caution = f"{error.public}; what was read before counts on"
        return Standing(self._files.chain[0] if self._files.chain else self._files.roots[0], self._files.roots, caution)

    def describe(self) -> Mapping[str, str]:
        return {"certificate": str(self._certificate), "key": str(self._key), "roots": str(self._roots)}

    async def close(self) -> None:
        """Nothing is held."""

    def _read(self) -> _Files:
        certificates = _certificates(self._certificate)
        roots = _certificates(self._roots)
        key = _private_key(self._key)
        if key.public_key() != certificates[0].public_key():
            raise UpstreamNotGood(f"{self._key} is not the key of the first certificate in {self._certificate}")
        _check_may_sign(certificates[0], self._certificate)
        if certificates[0] in roots:  # the operator's root itself signs
            return _Files((), (certificates[0], *(each for each in roots if each != certificates[0])), key)
        chain = tuple(each for each in certificates if each not in roots)
        for below, above in pairwise(chain):
            if not is_issued_by(below, above):
                raise UpstreamNotGood(f"{self._certificate}: a certificate is not issued by the one that follows it")
        if not any(is_issued_by(chain[-1], root) for root in roots):
            raise UpstreamNotGood(f"the last certificate in {self._certificate} is issued by no root in {self._roots}")
        return _Files(chain, roots, key)

    def _sign(self, files: _Files, csr: x509.CertificateSigningRequest, ttl: timedelta) -> x509.Certificate:
        above = files.chain or files.roots[:1]
        now, issuer = self._clock.now(), above[0]
        begins = max(now - _SLACK, *(each.not_valid_before_utc for each in above))
        ends = min(now + ttl, *(each.not_valid_after_utc for each in above))
        if ends <= begins:
            raise UpstreamNotGood(
                f"the certificate in {self._certificate} is not valid now: it ends at {ends:%Y-%m-%d}"
            )
        key = csr.public_key()
        if not csr.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
            raise UpstreamNotGood("the request is not signed by the key that it is for")
        builder = (
            x509.CertificateBuilder()
            .serial_number(secrets.randbits(127) | 1 << 126)
            .issuer_name(issuer.subject)
            .subject_name(csr.subject)
            .public_key(key)
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                ),
                critical=False,
            )
        )
        for each in csr.extensions:
            builder = builder.add_extension(each.value, critical=each.critical)
        strong = isinstance(files.key, ec.EllipticCurvePrivateKey) and files.key.curve.key_size > 256
        return builder.sign(files.key, hashes.SHA384() if strong else hashes.SHA256())


def _certificates(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        found = x509.load_pem_x509_certificates(_text(path).encode())
    except ValueError as error:
        raise UpstreamNotGood(f"{path} has no certificates in PEM that can be read", detail=str(error)) from error
    return tuple(dict.fromkeys(found))


def _private_key(path: Path) -> PrivateKey:
    text = _text(path)
    try:
        readable = path.stat().st_mode & stat.S_IRWXO
    except OSError as error:
        raise UpstreamNotGood(f"{path} cannot be read: {error.strerror}") from error
    if readable:
        raise UpstreamNotGood(f"{path} is a key that every user can read: chmod o= it, and consider another key")
    try:
        key = load_pem_private_key(text.encode(), None)
    except (TypeError, ValueError) as error:  # TypeError: it is encrypted
        raise UpstreamNotGood(f"{path} has no private key in PEM without a passphrase") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise UpstreamNotGood(f"{path} is a key of a kind that is not accepted: it is to be ECDSA or RSA")
    return key


def _text(path: Path) -> str:
    try:
        return trusted.read(path, UPSTREAM_FILE_MAX_BYTES)
    except InvalidInput as error:
        raise UpstreamNotGood(f"{path}: {error.public}") from error


def _check_may_sign(certificate: x509.Certificate, path: Path) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError) as error:
        raise UpstreamNotGood(f"{path}: the certificate lacks basic constraints or its key identifier") from error
    if not constraints.ca or constraints.path_length == 0:
        raise UpstreamNotGood(
            f"{path}: the certificate may sign no intermediates: it is no CA, or its path length is 0"
        )
