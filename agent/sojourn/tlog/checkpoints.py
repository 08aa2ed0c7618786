"""Checkpoints (C2SP tlog-checkpoint): the head of a log's tree as a signed note; and proofs, which end in one."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from sojourn.errors import InvalidInput
from sojourn.tlog.merkle import HASH_BYTES
from sojourn.tlog.notes import NOTE_MAX_BYTES, Note, unbase64

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_PROOF: Final = "c2sp.org/tlog-proof@v1"


def _hash(text: str) -> bytes:
    found = unbase64(text, "a hash")
    if len(found) != HASH_BYTES:
        raise InvalidInput("a hash is not 32 bytes of base64")
    return found


def _number(text: str) -> int:
    if _SIZE.fullmatch(text) is None:
        raise InvalidInput("a size or an index is not a number as it is written")
    return int(text)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How large a log's tree is, and its root."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a note's text. Raise InvalidInput: also for lines beyond the third, which none of our logs has."""
        return cls._parse(text.split("\n"), 4)

    @classmethod
    def parse_extended(cls, text: str) -> Self:
        """The same of any log's, which may have lines beyond the third; they are left alone. Raise InvalidInput."""
        lines = text.split("\n")
        if not all(lines[3:-1]):
            raise InvalidInput("it is no checkpoint: a line of it is empty")
        return cls._parse(lines, len(lines))

    @classmethod
    def _parse(cls, lines: Sequence[str], count: int) -> Self:
        if not 4 <= len(lines) == count or lines[-1] or not lines[0]:
            raise InvalidInput("it is no checkpoint: those have an origin, a size and a root")
        return cls(lines[0], _number(lines[1]), _hash(lines[2]))

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class Proof:
    """That a leaf is in a log (C2SP tlog-proof). `extra`: the leaf, or what it is made of; `note`: a checkpoint."""

    extra: bytes
    index: int
    path: tuple[bytes, ...]
    note: Note

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Raise InvalidInput. Nothing is verified."""
        if len(octets) > 2 * NOTE_MAX_BYTES:
            raise InvalidInput("the proof is too long")
        head, empty, note = octets.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeError as error:
            raise InvalidInput("the proof is not ASCII before its checkpoint") from error
        if not empty or len(lines) < 3 or lines[0] != _PROOF or not lines[1].startswith("extra "):
            raise InvalidInput(f"it is no {_PROOF} with a record")
        if not lines[2].startswith("index "):
            raise InvalidInput("the proof has no index")
        extra = unbase64(lines[1][6:], "the record in the proof")
        return cls(extra, _number(lines[2][6:]), tuple(map(_hash, lines[3:])), Note.parse(note))

    def __str__(self) -> str:
        path = "".join(f"{base64.b64encode(each).decode()}\n" for each in self.path)
        return f"{_PROOF}\nextra {base64.b64encode(self.extra).decode()}\nindex {self.index}\n{path}\n{self.note}"
