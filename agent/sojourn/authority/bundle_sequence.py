"""The bundle's sequence number: it only grows, whatever the clock does, and with every change of the contents."""

from pathlib import Path

from sojourn.authority import key_files
from sojourn.errors import CannotStart
from sojourn.files import atomic


class BundleSequence:
    """A number and the digest of what it stands for, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, content: str, at_least: int) -> int:
        """The number for `content` (a digest): the one that it had, or a new one that is larger than any before."""
        kept = key_files.read(self._path)
        number, digest = 0, ""
        if kept is not None:
            try:
                text, digest = kept.decode("ascii").split()
                number = int(text)
            except ValueError as error:
                raise CannotStart(f"{str(self._path)!r} cannot be parsed: remove it") from error
        if digest != content:
            number = max(number + 1, at_least)
            atomic.write(self._path, f"{number} {content}\n".encode())
        return number
