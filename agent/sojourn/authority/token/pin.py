"""The PIN of a token, which the key process alone reads, and one that the token has refused, which is not tried again.

A token locks itself after a few wrong PINs. So what is about to be tried is recorded before, by a slow hash (scrypt),
which tells the same PIN from another one over all restarts, and from which nobody gets even the wrong one cheaply. The
record goes once the token has taken the PIN.
"""

import hashlib
import json
import os
import secrets
import stat
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from sojourn.errors import KeysUnavailable, PinRefused
from sojourn.files import atomic

PIN_MAX_BYTES: Final = 255
_SALT_BYTES: Final = 16
_COST: Final = {"n": 2**15, "r": 8, "p": 1, "maxmem": 64 * 1024 * 1024, "dklen": 32}  # 60 ms


def read_pin(path: Path) -> str:
    """The PIN in a file: a line of it, or all. Raise PinRefused if there is none, or others could have read it."""
    said = f"the file {str(path)!r} with the token's PIN"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PinRefused(f"{said} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PinRefused(f"{said} is not a regular file")
        if status.st_uid not in {0, os.geteuid()}:
            raise PinRefused(f"{said} belongs to user {status.st_uid}: it must be this agent's or root's")
        # systemd gives a service its credentials by an access list, whose mask stands where the group's rights do.
        if status.st_mode & 0o027 or (status.st_mode & 0o050 and status.st_gid not in {0, os.getegid()}):
            raise PinRefused(f"{said} can be read by others: chmod 600 it, and change the PIN")
        content = file.read(PIN_MAX_BYTES + 2)
    content = content.removesuffix(b"\n")
    try:
        pin = content.decode()
    except UnicodeDecodeError:
        raise PinRefused(f"{said} is not text") from None
    if not pin or len(content) > PIN_MAX_BYTES or "\n" in pin or "\0" in pin:
        raise PinRefused(f"{said} has to have the PIN, and nothing else")
    return pin


@dataclass(frozen=True)
class TriedPin:
    """A PIN that was tried, so that it can be told from another one. `token` is the label of the one that was asked.

    `refused`: it has refused it; otherwise nobody has heard what came of it.
    """

    token: str
    salt: str = field(default_factory=lambda: secrets.token_hex(_SALT_BYTES))
    digest: str = ""
    refused: bool = False

    def of(self, pin: str) -> "TriedPin":
        """What is recorded of a PIN, by this salt, before it is tried."""
        content = json.dumps([self.token, pin]).encode()
        digest = hashlib.scrypt(content, salt=bytes.fromhex(self.salt), **_COST)
        return TriedPin(self.token, self.salt, b64encode(digest).decode())


class PinRecord:
    """The file that says which PIN was tried last, unless the token has taken it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> TriedPin | None:
        """What is recorded; a file that is none counts as if it were not there."""
        try:
            token, salt, digest, refused = json.loads(self._path.read_bytes())
            bytes.fromhex(salt)
        except (OSError, ValueError, TypeError):
            return None
        return TriedPin(str(token), str(salt), str(digest), refused is not False)

    def of(self, token: str) -> TriedPin | None:
        """What is recorded of this token."""
        known = self.read()
        return known if known is not None and known.token == token else None

    def write(self, tried: TriedPin) -> None:
        """Raise OSError."""
        atomic.write(self._path, json.dumps([tried.token, tried.salt, tried.digest, tried.refused]).encode())

    def note_tried(self, tried: TriedPin) -> None:
        """The PIN is about to be tried. Raise KeysUnavailable: what cannot be written down is not."""
        try:
            self.write(tried)
        except OSError as error:
            raise KeysUnavailable(
                f"no PIN is tried, as it cannot be written down that it is: {error.strerror}"
            ) from error

    def note_refused(self, tried: TriedPin, error: PinRefused) -> None:
        """The token has refused this PIN, or the one that the error names. What cannot be written stays as tried."""
        if error.detail:
            salt, digest = error.detail.split()
            tried = TriedPin(tried.token, salt, digest)
        if tried.digest:
            with suppress(OSError):
                self.write(replace(tried, refused=True))

    def clear(self) -> None:
        """Forget it: the token has taken the PIN. What cannot be removed says that nobody has heard of that."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
