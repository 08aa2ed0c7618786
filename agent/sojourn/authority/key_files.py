"""Private keys on disk: where they lie, and reading those that nobody else could have read or made.

They lie in clear, or sealed (key_seal.py): then whoever reads or writes one has the seal.
"""

import asyncio
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from sojourn.authority.key_seal import KeySeal, is_sealed
from sojourn.errors import CannotStart, KeysSealed, StoreFailed
from sojourn.files import atomic

HOW_TO_OPEN: Final = "keys.seal_key of the agent's configuration has to name the key that it was sealed with"
_RANDOM_BYTES: Final = 32


def make_folder(folder: Path) -> None:
    """Make the folder of the keys, 0700, if it is not there. Raise CannotStart if others could put keys into it."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.stat(folder)
    except OSError as error:
        raise CannotStart(f"cannot make the folder {str(folder)!r} for the keys: {error.strerror}") from error
    if status.st_uid != os.geteuid():
        raise CannotStart(f"the folder {str(folder)!r} belongs to user {status.st_uid}: it must be this agent's own")
    if status.st_mode & 0o022:
        raise CannotStart(f"the folder {str(folder)!r} can be written by others: chmod go-w it, and look at its keys")


def read(path: Path, seal: KeySeal | None = None) -> bytes | None:
    """Return the content in clear, or None if there is no such file. `seal`: what keys are sealed with, if they are.

    Raise CannotStart if others could have read or made it; KeysSealed if it is sealed, and not with that.
    """
    content = read_sealed(path)
    return None if content is None else in_clear(path, content, seal)


def in_clear(path: Path, content: bytes, seal: KeySeal | None) -> bytes:
    """The same of a content as it lies in the file. Raise KeysSealed, CannotStart as `read` does."""
    if seal is not None:
        return seal.open(logical_name(path), content)
    if is_sealed(content):
        raise KeysSealed(f"key file {str(path)!r} is sealed: {HOW_TO_OPEN}")
    return content


def write(path: Path, content: bytes, seal: KeySeal | None = None) -> None:
    """Have the content in a file, sealed if there is a seal. Raise OSError."""
    atomic.write(path, content if seal is None else seal.seal(logical_name(path), content))


def logical_name(path: Path) -> str:
    """What a file is sealed as: one that is to take another's place has that one's name, with `.new` behind."""
    return path.name.removesuffix(".new")


def read_sealed(path: Path) -> bytes | None:
    """The content as it lies there, or None if there is no such file. Raise CannotStart as `read` does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotStart(f"key file {str(path)!r} cannot be read: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise CannotStart(f"key file {str(path)!r} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_uid != os.geteuid():
            raise CannotStart(f"key file {str(path)!r} belongs to user {status.st_uid}: it must be this agent's own")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise CannotStart(f"key file {str(path)!r} can be read by others: chmod 600 it, and consider a new root")
        return file.read()


class RandomKey:
    """A key of random bytes, which is made at first use, in a folder that must be there by then."""

    def __init__(self, path: Path, use: str, lost: str, seal: KeySeal | None = None) -> None:
        """Read the key if there is one. `use`: what it is "the key that" does; `lost`: what is so once it is gone.
        `seal`: what keys are sealed with, if they are.

        Raise CannotStart if others could have read it, or it is none.
        """
        self._path = path
        self._use = use
        self._seal = seal
        self._key = read(path, seal)
        if self._key is not None and len(self._key) != _RANDOM_BYTES:
            raise CannotStart(f"key file {str(path)!r} is damaged: restore it, or remove it and {lost}")
        self._making = asyncio.Lock()

    @property
    def there(self) -> bool:
        return self._key is not None

    @property
    def value(self) -> bytes:
        """`prepare` was awaited before. Raise StoreFailed."""
        if self._key is None:
            raise StoreFailed(f"there is no key that {self._use}")
        return self._key

    async def prepare(self) -> None:
        """Have a key, on disk. Raise StoreFailed if it cannot be written."""
        async with self._making:
            if self._key is None:
                key = secrets.token_bytes(_RANDOM_BYTES)
                try:
                    await asyncio.to_thread(write, self._path, key, self._seal)
                except OSError as error:
                    raise StoreFailed(f"the key that {self._use} cannot be written", detail=str(error)) from error
                self._key = key
