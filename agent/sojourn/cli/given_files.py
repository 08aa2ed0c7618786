"""Files that a command is given, - for its standard input."""

import sys
from pathlib import Path

from sojourn.errors import InvalidInput


def read_start(file: str, most: int) -> bytes:
    """The first bytes of a file, so many at the most. Raise InvalidInput."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(most)
        with Path(file).open("rb") as opened:
            return opened.read(most)
    except OSError as error:
        raise InvalidInput(f"{file[:200]!r} cannot be read: {error.strerror}") from error


def read_given(file: str, most: int) -> bytes:
    """The content of a file, which may have so many bytes. Raise InvalidInput."""
    read = read_start(file, most + 1)
    if len(read) > most:
        raise InvalidInput(f"the file is larger than {most} bytes")
    return read
