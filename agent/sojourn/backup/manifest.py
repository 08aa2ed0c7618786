"""What a backup says of itself, before anything in it is opened. Values."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from sojourn.errors import InvalidInput
from sojourn.errors.oauth import BackupDamaged
from sojourn.jose.canonical_json import canonical, exactly
from sojourn.store.snapshot import Head

FORMAT = 1
_SALT, _DIGEST = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{64}")
_LAST_SECOND = 253_402_300_799  # of the year 9999
_MOST = (1 << 63) - 1  # that a database, and a file's size, can have


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a backup, by its path below the data folder. `sha256` is of the clear content, lower-case hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`salt` is what the passphrase is stretched with, hex; `scrypt_n` the cost of that (RFC 7914)."""

    created_at: int  # seconds since the epoch
    release: str
    trust_domain: str
    schema: str
    readable_by: str
    epoch: int
    journal: Head
    config_digest: str  # of the configuration at that time, lower-case hex; empty: none was named
    salt: str
    scrypt_n: int
    parts: Sequence[Part]

    def line(self) -> bytes:
        """As it stands in the file: one line of JSON, without its end."""
        return canonical({"format": FORMAT, **asdict(self)}).encode()

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Raise BackupDamaged."""
        try:
            return cls._of(exactly(dict, json.loads(line)))
        except (InvalidInput, KeyError, RecursionError, TypeError, ValueError) as error:
            raise BackupDamaged("the backup does not say what it is of", detail=str(error)) from error

    @classmethod
    def _of(cls, said: Mapping[str, Any]) -> Self:
        if said["format"] != FORMAT:
            raise BackupDamaged(f"the backup is of form {said['format']!r}, and this release knows {FORMAT}")
        journal = exactly(dict, said["journal"])
        parts = [exactly(dict, each) for each in exactly(list, said["parts"])]
        return cls(
            created_at=_number(said["created_at"], _LAST_SECOND),
            release=_line(said["release"]),
            trust_domain=_line(said["trust_domain"]),
            schema=_line(said["schema"]),
            readable_by=_line(said["readable_by"]),
            epoch=_number(said["epoch"]),
            journal=Head(
                _number(journal["seq"]),
                _text(journal["digest"], _DIGEST),
                _number(journal["at_ms"], _LAST_SECOND * 1_000),
            ),
            config_digest=_text(said["config_digest"], _DIGEST) if said["config_digest"] != "" else "",
            salt=_text(said["salt"], _SALT),
            scrypt_n=_number(said["scrypt_n"]),
            parts=tuple(
                Part(_line(each["name"]), _number(each["size"]), _text(each["sha256"], _DIGEST)) for each in parts
            ),
        )


def _number(value: object, most: int = _MOST) -> int:
    number = exactly(int, value)
    if not 0 <= number <= most:
        raise InvalidInput("a number that none of a backup's is")
    return number


def _text(value: object, form: re.Pattern[str]) -> str:
    text = exactly(str, value)
    if not form.fullmatch(text):
        raise InvalidInput("not so many hexadecimal digits as there are")
    return text


def _line(value: object) -> str:
    """A text that can be shown: whoever made the file may have no passphrase, and what it says goes to a terminal."""
    text = exactly(str, value)
    if not text.isprintable():
        raise InvalidInput("a text with characters that cannot be shown")
    return text
