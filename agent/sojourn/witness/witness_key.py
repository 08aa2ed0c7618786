"""What a witness is: its name, and its Ed25519 key, in a folder of its own. The key has no other use.

A witness that has forgotten what it cosigned could cosign something else. So what it knows is made before its key: a
key without that is refused, and a folder that has lost its key begins as another witness.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sojourn.authority import key_files
from sojourn.errors import CannotStart, InvalidInput
from sojourn.files import atomic
from sojourn.tlog.notes import Signer

KEY, NAME, HEADS, ORIGINS = "witness.key", "name", "heads", "origins"
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9./-]{0,198}[a-z0-9])?")
_NAME_MAX: Final = 1_000


def signer_of(folder: Path, name: str = "") -> Signer:
    """The key of the witness in this folder, which is made if the folder has none yet. The folder is claimed.

    `name`: such as `witness.example.org/w1`; needed the first time. Raise CannotStart, InvalidInput.
    """
    octets = key_files.read(folder / KEY)
    if octets is None:
        return _made(folder, name)
    if not (folder / HEADS).is_dir() or not (folder / ORIGINS).is_file():
        raise CannotStart(
            f"the witness in {str(folder)!r} has its key, and no longer knows what it has cosigned: remove the folder,"
            " and give its logs the key of the new witness"
        )
    try:
        with (folder / NAME).open("rb") as file:
            known = file.read(_NAME_MAX).decode().strip()
        private = serialization.load_pem_private_key(octets, None)
    except (OSError, ValueError, TypeError) as error:
        raise CannotStart(f"the witness in {str(folder)!r} is damaged: its name or its key cannot be read") from error
    if not isinstance(private, Ed25519PrivateKey) or _NAME.fullmatch(known) is None:
        raise CannotStart(f"the witness in {str(folder)!r} is damaged: its name or its key is none of a witness")
    if name and name != known:
        raise InvalidInput(f"--name: the witness in {str(folder)!r} is {known!r}: another one needs its own folder")
    return Signer(known, private)


def _made(folder: Path, name: str) -> Signer:
    if not name:
        raise InvalidInput("--name is needed the first time: such as witness.example.org/w1, by which others know it")
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(f"--name: {name[:200]!r} is not made of a-z, 0-9, dots, dashes and slashes")
    made = Ed25519PrivateKey.generate()
    octets = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        (folder / HEADS).mkdir(mode=0o700, exist_ok=True)
        origins = folder / ORIGINS
        if any((folder / HEADS).iterdir()) or (origins.exists() and origins.stat().st_size):
            raise CannotStart(
                f"the witness in {str(folder)!r} has lost its key: remove the folder, and begin with a new one"
            )
        atomic.write(origins, b"")
        atomic.write(folder / NAME, f"{name}\n".encode())
        atomic.write(folder / KEY, octets)
    except OSError as error:
        raise CannotStart(f"the folder {str(folder)!r} cannot be written: {error.strerror}") from error
    return Signer(name, made)


def shown(folder: Path, name: str, claim: Callable[[Path], AbstractContextManager[None]]) -> str:
    """The witness's verifier key; also of one that runs, whose folder cannot be claimed. Raise as `signer_of` does."""
    if (folder / KEY).exists():
        return signer_of(folder, name).key.cosigner
    with claim(folder):
        return signer_of(folder, name).key.cosigner
