"""Octets sealed with AES-256-GCM under a key of 32 bytes: a byte of form, a nonce, then ciphertext and tag.

What they are about is sealed with them, so that they are good in no other one's place.
"""

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_FORM: Final = b"\x01"
_NONCE_BYTES: Final = 12


def seal(key: bytes, content: bytes, about: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _FORM + nonce + AESGCM(key).encrypt(nonce, content, about)


def opened(key: bytes, sealed: bytes, about: bytes) -> bytes:
    """Raise ValueError if it was changed or cut, or sealed with another key or about something else."""
    if sealed[:1] != _FORM:
        raise ValueError("not sealed")
    nonce, rest = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, rest, about)
    except InvalidTag as error:
        raise ValueError("not as it was sealed") from error
