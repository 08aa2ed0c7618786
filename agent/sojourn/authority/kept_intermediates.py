"""Intermediates on disk, so that a restart asks for nothing while one lives: those of an upstream authority, and sealed
those of a root whose key is in a token.

`keys/intermediates.pem`: for each a line `# intermediate`, its key and its chain, as PEM; the last one signs.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sojourn.authority import key_files
from sojourn.authority.intermediates import Issuer
from sojourn.authority.key_seal import KeySeal
from sojourn.errors import CannotStart, StoreFailed

_MARK: Final = b"# intermediate\n"


class KeptIntermediates:
    """A file of them."""

    def __init__(self, path: Path, seal: KeySeal | None = None) -> None:
        """`seal`: what keys are sealed with on disk, if they are."""
        self._path = path
        self._seal = seal

    def load(self) -> tuple[Issuer, ...]:
        """In the order in which they were made. Raise CannotStart if what lies there cannot be used."""
        content = key_files.read(self._path, self._seal)
        if content is None:
            return ()
        try:
            return tuple(_issuer(block) for block in content.split(_MARK) if block.strip())
        except ValueError as error:
            raise CannotStart(
                f"{str(self._path)!r} cannot be parsed: remove it, and another intermediate is asked for",
                detail=str(error),
            ) from error

    def save(self, issuers: Iterable[Issuer]) -> None:
        """Raise StoreFailed."""
        blocks = [_MARK + _pem(each) for each in issuers]
        try:
            key_files.write(self._path, b"".join(blocks), self._seal)
        except OSError as error:
            raise StoreFailed(
                f"the intermediates cannot be written: {error.strerror}", detail=str(self._path)
            ) from error

    def remove(self) -> None:
        """Raise StoreFailed."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreFailed(f"{str(self._path)!r} cannot be removed: {error.strerror}") from error


def _issuer(block: bytes) -> Issuer:
    key, chain = load_pem_private_key(block, None), tuple(x509.load_pem_x509_certificates(block))
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != chain[0].public_key():
        raise ValueError("key and certificate do not belong together")
    return Issuer.of(key, chain)


def _pem(issuer: Issuer) -> bytes:
    key = issuer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key + b"".join(each.public_bytes(Encoding.PEM) for each in issuer.chain)
