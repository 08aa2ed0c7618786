"""Sealing what credentials are taken back by: on disk it is of no use to whoever reads the database alone.

A handle is sealed with AES-256-GCM under a key of the agent's own, in a file that only the agent can read. The name of
its credential is sealed with it, so that it is good in no other one's place.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from sojourn.authority import sealed_bytes
from sojourn.authority.key_files import RandomKey
from sojourn.authority.key_seal import KeySeal
from sojourn.errors import SojournError


class HandleUnreadable(SojournError):
    """A sealed handle cannot be opened: the key is another one, or it was changed."""

    code = "handle_unreadable"


class Sealing:
    """Seals handles. The key is made at first use, in a folder that must be there by then."""

    def __init__(self, path: Path, seal: KeySeal | None = None) -> None:
        """Read the key if there is one. `seal`: what keys are sealed with, if they are.

        Raise CannotStart if others could have read it, or it is none.
        """
        self._name = path.name
        self._key = RandomKey(path, "handles are sealed with", "what it sealed is lost", seal)

    async def prepare(self) -> None:
        """Have a key, on disk. Raise StoreFailed if it cannot be written."""
        await self._key.prepare()

    def seal(self, name: str, handle: Mapping[str, str]) -> bytes:
        """Seal the handle of the credential with this name. `prepare` was awaited before. Raise StoreFailed."""
        text = json.dumps(dict(handle), separators=(",", ":")).encode()
        return sealed_bytes.seal(self._key.value, text, name.encode())

    def open(self, name: str, sealed: bytes) -> dict[str, str]:
        """The handle of the credential with this name. Raise HandleUnreadable."""
        if not self._key.there:
            raise HandleUnreadable(f"the key {self._name!r} that its handle was sealed with is gone")
        try:
            handle = json.loads(sealed_bytes.opened(self._key.value, sealed, name.encode()))
        except ValueError as error:
            said = f"its handle cannot be opened: it was changed, or sealed with another key than {self._name!r}"
            raise HandleUnreadable(said) from error
        return {str(key): str(value) for key, value in handle.items()}
