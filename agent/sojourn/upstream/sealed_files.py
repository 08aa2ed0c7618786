"""Files that hold what this node has been given: whoever reads one without the key has nothing, and one that was
changed, cut or put in another's place is not believed.

Each is sealed with AES-256-GCM under a key of the agent's own, in a file beside them that only the agent can read. A
file's name, and what it is about, are sealed with it.
"""

import os
from pathlib import Path
from typing import Final

from sojourn.authority import key_files, sealed_bytes
from sojourn.authority.key_files import RandomKey
from sojourn.authority.key_seal import KeySeal
from sojourn.errors import SojournError
from sojourn.files import atomic

_KEY: Final = "seal.key"
_SUFFIX: Final = ".sealed"


class FileUnreadable(SojournError):
    """A sealed file cannot be opened: the key is another one, or it was changed."""

    code = "sealed_file_unreadable"


class SealedFiles:
    """Files of one folder, 0600 in one of 0700. Its methods read and write: they are for threads."""

    def __init__(self, folder: Path, about: str, seal: KeySeal | None = None) -> None:
        """`about`: what they are about, such as a trust domain; files about something else are not believed. `seal`:
        what keys are sealed with on disk, if they are.

        Raise CannotStart if others could have read the key, or put files into the folder.
        """
        key_files.make_folder(folder)
        self._folder = folder
        self._about = about.encode()
        self._seal = seal
        self._key = self._found_key()

    def _found_key(self) -> RandomKey:
        use = "what a node keeps is sealed with"
        return RandomKey(self._folder / _KEY, use, "the node joins anew", self._seal)

    async def prepare(self) -> None:
        """Have a key, on disk. Raise StoreFailed if it cannot be written."""
        await self._key.prepare()

    def names(self) -> set[str]:
        """The names of the files that are there."""
        return {each.name.removesuffix(_SUFFIX) for each in self._folder.glob(f"*{_SUFFIX}")}

    def read(self, name: str) -> bytes | None:
        """What was sealed by this name; None: there is no such file. Raise FileUnreadable."""
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                sealed = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FileUnreadable(f"it cannot be read: {error.strerror}") from error
        if not self._key.there:
            raise FileUnreadable(f"the key {_KEY!r} that it was sealed with is gone")
        try:
            return sealed_bytes.opened(self._key.value, sealed, self._sealed_with(name))
        except ValueError as error:
            raise FileUnreadable(
                "it was changed, cut, or sealed with another key, by another name or for other use"
            ) from error

    def write(self, name: str, content: bytes) -> None:
        """Seal a file in the place of one that may be there. `prepare` was awaited before. Raise OSError."""
        atomic.write(self._path(name), sealed_bytes.seal(self._key.value, content, self._sealed_with(name)))

    def remove(self, name: str) -> None:
        """Raise OSError."""
        self._path(name).unlink(missing_ok=True)

    def destroy(self) -> None:
        """Remove all files, and the key first, without which they are worth nothing. Raise OSError."""
        destroy(self._folder)
        self._key = self._found_key()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"

    def _sealed_with(self, name: str) -> bytes:
        return self._about + b"\0" + name.encode()


def destroy(folder: Path) -> None:
    """Remove the files of a folder whether or not they can be opened, and what a crash has left of one that was being
    written: the key first, without which the rest is worth nothing. Raise OSError.
    """
    (folder / _KEY).unlink(missing_ok=True)
    for pattern in (f"*{_SUFFIX}", str(atomic.scratch_of(Path("*")))):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
