"""A token that somebody keeps in a file: of a service account, of Vault's agent, or one to join by."""

from pathlib import Path
from typing import Final

from sojourn.errors import InvalidInput
from sojourn.files import trusted

_MAX_BYTES: Final = 65_536


def token_in(path: Path) -> str:
    """The token, which is all that the file has. Raise InvalidInput, also if others could have written it."""
    token = trusted.read(path, _MAX_BYTES).strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidInput("has no token, or more than that")
    return token
