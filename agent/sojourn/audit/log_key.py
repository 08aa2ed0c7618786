"""The key that signs checkpoints of the journal: `keys/audit.key`, PKCS #8 in PEM, 0600. It has no other use.

A key that is to take its place is written beside it first, so that the one which the database names is there whatever
moment a crash comes at.
"""

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sojourn.authority import key_files
from sojourn.authority.key_seal import KeySeal
from sojourn.errors import CannotStart, StoreFailed

AUDIT_KEY = "audit.key"  # in the folder of keys


class LogKey:
    """The file of the key, and of the one that is to follow it."""

    def __init__(self, folder: Path, seal: KeySeal | None = None) -> None:
        """`seal`: what keys are sealed with, if they are."""
        self._folder = folder
        self._seal = seal
        self._path, self._next = folder / AUDIT_KEY, folder / f"{AUDIT_KEY}.new"
        self.fault = ""  # why the last one that was wanted could not be had

    def of(self, public: bytes) -> Ed25519PrivateKey | None:
        """The key with this public key, which is in its place then; None: `fault` says why there is none."""
        self.fault = "it is gone"
        for path in (self._path, self._next):
            found = self._read(path)
            if found is not None and found.public_key().public_bytes_raw() == public:
                if path == self._next:
                    self.settle()
                self._next.unlink(missing_ok=True)
                return found
        return None

    def _read(self, path: Path) -> Ed25519PrivateKey | None:
        try:
            octets = key_files.read(path, self._seal)
            if octets is None:
                return None
            found = serialization.load_pem_private_key(octets, None)
        except CannotStart as error:
            self.fault = error.public
            return None
        except (OSError, ValueError, TypeError):
            self.fault = "it is damaged"
            return None
        if not isinstance(found, Ed25519PrivateKey):
            self.fault = "it is of another kind"
            return None
        self.fault = "it is another key"
        return found

    def make(self) -> Ed25519PrivateKey:
        """Write a new key beside the one that there is. Raise CannotStart, StoreFailed."""
        key_files.make_folder(self._folder)
        made = Ed25519PrivateKey.generate()
        octets = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        try:
            key_files.write(self._next, octets, self._seal)
        except OSError as error:
            raise StoreFailed(f"the key {str(self._next)!r} cannot be written", detail=str(error)) from error
        return made

    def settle(self) -> None:
        """Put the new key into the place of the one before. Raise StoreFailed."""
        try:
            os.replace(self._next, self._path)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StoreFailed(f"the key {str(self._path)!r} cannot be written", detail=str(error)) from error
