"""Sealing what credentials are taken back by: on disk it is of no use to whoever reads the database alone.

A handle is sealed with AES-256-GCM under a key of the agent's own, in a file that only the agent can read. The name of
its credential is sealed with it, so that it is good in no other one's place.
"""

import asyncio
import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sojourn.authority import key_files
from sojourn.errors import CannotStart, SojournError, StoreFailed
from sojourn.files import atomic

_FORM = b"\x01"  # of what follows: nonce, ciphertext and tag
_KEY_BYTES, _NONCE_BYTES = 32, 12


class HandleUnreadable(SojournError):
    """A sealed handle cannot be opened: the key is another one, or it was changed."""

    code = "handle_unreadable"


class Sealing:
    """Seals handles. The key is made at first use, in a folder that must be there by then."""

    def __init__(self, path: Path) -> None:
        """Read the key if there is one. Raise CannotStart if others could have read it, or it is none."""
        self._path = path
        key = key_files.read(path)
        if key is not None and len(key) != _KEY_BYTES:
            raise CannotStart(f"key file {str(path)!r} is damaged: restore it, or remove it and what it sealed is lost")
        self._cipher = None if key is None else AESGCM(key)
        self._making = asyncio.Lock()

    async def prepare(self) -> None:
        """Have a key, on disk. Raise StoreFailed if it cannot be written."""
        async with self._making:
            if self._cipher is None:
                key = secrets.token_bytes(_KEY_BYTES)
                try:
                    await asyncio.to_thread(atomic.write, self._path, key)
                except OSError as error:
                    raise StoreFailed(
                        "the key that handles are sealed with cannot be written", detail=str(error)
                    ) from error
                self._cipher = AESGCM(key)

    def seal(self, name: str, handle: Mapping[str, str]) -> bytes:
        """Seal the handle of the credential with this name. `prepare` was awaited before."""
        if self._cipher is None:
            raise StoreFailed("there is no key that handles are sealed with")
        nonce = secrets.token_bytes(_NONCE_BYTES)
        text = json.dumps(dict(handle), separators=(",", ":")).encode()
        return _FORM + nonce + self._cipher.encrypt(nonce, text, name.encode())

    def open(self, name: str, sealed: bytes) -> dict[str, str]:
        """The handle of the credential with this name. Raise HandleUnreadable."""
        if self._cipher is None:
            raise HandleUnreadable(f"the key {self._path.name!r} that its handle was sealed with is gone")
        nonce, rest = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _FORM:
                raise ValueError("not sealed")
            handle = json.loads(self._cipher.decrypt(nonce, rest, name.encode()))
        except (InvalidTag, ValueError) as error:
            said = f"its handle cannot be opened: it was changed, or sealed with another key than {self._path.name!r}"
            raise HandleUnreadable(said) from error
        return {str(key): str(value) for key, value in handle.items()}
