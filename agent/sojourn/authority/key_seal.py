"""Private keys sealed in their files: whoever has the files, a copy of the disk, or a backup of it, has no key by that.

A sealed file is as it would be in clear, but that a block of PEM, `SOJOURN SEALED KEY`, stands in the place of each
private key; or of all of it, where it is no PEM. So what is public in it is read without the key that seals, which is
32 bytes that somebody else keeps: systemd, bound to the machine's TPM, or a secret store. A block has a version, the ID
of the sealing key, a nonce, and the ciphertext of AES-256-GCM; the file's name is sealed with it, so that it is good in
no other one's place.
"""

import hashlib
import os
import re
import secrets
import stat
from base64 import b64decode, encodebytes
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sojourn.errors import CannotStart, KeysSealed

SEAL_KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_HEAD_BYTES: Final = len(_VERSION) + _ID_BYTES + _NONCE_BYTES
_BEGIN, _END = b"-----BEGIN SOJOURN SEALED KEY-----\n", b"-----END SOJOURN SEALED KEY-----\n"
_SEALED: Final = re.compile(re.escape(_BEGIN) + b"([A-Za-z0-9+/=\n]*?)" + re.escape(_END))
_PUBLIC: Final = re.compile(  # certificates whose keys are in a token: see roots.py
    rb"(?:# [ -~]+\n-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\npkcs11:[!-~]+\n)+"
)
_CLEAR: Final = re.compile(b"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \\1-----\n?", re.DOTALL)


def has_secret(content: bytes) -> bool:
    """Whether there is a private key in a file, sealed or in clear: there is none where all keys are in a token."""
    return _PUBLIC.fullmatch(content) is None


def is_sealed(content: bytes) -> bool:
    """Whether there is a sealed key in a file."""
    return _BEGIN in content


class KeySeal:
    """Seals and opens what is in key files."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._id = hashlib.sha256(b"sojourn seal key\n" + key).digest()[:_ID_BYTES]

    @classmethod
    def at(cls, path: Path) -> Self:
        """By the key in a file. Raise CannotStart if it is none, or if others could have read or made it."""
        return cls(_read(path))

    def seal(self, name: str, content: bytes) -> bytes:
        """The content of the file `name`, with each private key in it sealed."""
        if not has_secret(content):
            return content
        if not _CLEAR.search(content):
            return self._block(name, content)
        return _CLEAR.sub(lambda found: self._block(name, found[0]), content)

    def open(self, name: str, content: bytes) -> bytes:
        """What was sealed. Raise KeysSealed if by another key, CannotStart if it is not sealed, or was changed."""
        if not has_secret(content):
            return content
        if _CLEAR.search(content) or not is_sealed(content):
            raise CannotStart(f"key file {name!r} is not sealed: start the agent, which seals it")
        clear = _SEALED.sub(lambda found: self._opened(name, found[1]), content)
        if is_sealed(clear):  # a block has no end
            raise _changed(name)
        return clear

    def _block(self, name: str, clear: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = _VERSION + self._id + nonce
        return _BEGIN + encodebytes(head + self._cipher.encrypt(nonce, clear, name.encode())) + _END

    def _opened(self, name: str, block: bytes) -> bytes:
        octets = b64decode(block)
        if encodebytes(octets) != block:  # there is one way to write it
            raise _changed(name)
        if octets[:1] == _VERSION and octets[1 : 1 + _ID_BYTES] != self._id:
            raise KeysSealed(f"key file {name!r} was sealed by another key than the one that keys.seal_key names")
        try:
            if octets[:1] != _VERSION or len(octets) <= _HEAD_BYTES:
                raise ValueError("not a block of ours")
            nonce = octets[_HEAD_BYTES - _NONCE_BYTES : _HEAD_BYTES]
            return self._cipher.decrypt(nonce, octets[_HEAD_BYTES:], name.encode())
        except (InvalidTag, ValueError) as error:
            raise _changed(name) from error


def _changed(name: str) -> CannotStart:
    return CannotStart(f"key file {name!r} was changed after it was sealed: restore it from a backup")


def _read(path: Path) -> bytes:
    said = f"the key {str(path)!r} that seals keys"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CannotStart(f"{said} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):  # not a pipe, as whoever opens keys by hand gives it
            _check(status, said)
        content = file.read(SEAL_KEY_BYTES + 1)
    if len(content) != SEAL_KEY_BYTES:
        raise CannotStart(f"{said} has to have {SEAL_KEY_BYTES} bytes, and nothing else: make it of random ones")
    return content


def _check(status: os.stat_result, said: str) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise CannotStart(f"{said} belongs to user {status.st_uid}: it must be this agent's or root's")
    # systemd gives a service its credentials by an access list, whose mask stands where the group's rights do.
    if status.st_mode & 0o027 or (status.st_mode & 0o050 and status.st_gid not in {0, os.getegid()}):
        raise CannotStart(f"{said} can be read by others: chmod 600 it, and seal by another one")
