"""What an exported folder says of itself: `manifest.json`; in `manifest.note` the log's key signs its digest.

Tiles are not in it: the checkpoint tells whether they are the log's.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from sojourn.errors import InvalidInput
from sojourn.jose.canonical_json import canonical, exactly

MANIFEST, MANIFEST_NOTE, RECORDS = "manifest.json", "manifest.note", "records.ndjson"
COSIGNED: Final = "cosigned-"  # how files of a log begin that a witness has cosigned; the ID of its key is behind it
STAMP: Final = "stamp-"  # those of a checkpoint that is time-stamped: AT-SIZE.note, and the answer AT-SIZE.tsr
FORMAT: Final = 1
_HEADER: Final = "sojourn audit export v1"  # no origin of a log: what signs a manifest is no checkpoint
_ID: Final = re.compile("[0-9a-f]{16}")
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_MOST: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class ExportedLog:
    """A log whose records are in the folder. `reason`: why it was begun."""

    origin: str
    first_seq: int
    size: int
    reason: str

    @property
    def id(self) -> str:
        """The last part of its origin."""
        return self.origin.rpartition("/")[2]

    @property
    def end_seq(self) -> int:
        return self.first_seq + self.size - 1

    @property
    def folder(self) -> str:
        """Where its checkpoint, rotations and tiles lie."""
        return f"logs/{self.id}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in the folder: records from `begin` to `end`, of a journal that was pruned up to `pruned_until`.

    `before`: the digest of the record before `begin`. `logs`: the oldest first; the last one's key signs. `made_at`:
    seconds since the epoch. `files`: SHA-256 of each in hex.
    """

    made_at: int
    begin: int
    end: int
    before: str
    pruned_until: int
    since_ms: int
    until_ms: int
    logs: tuple[ExportedLog, ...]
    files: Mapping[str, str]

    def written(self) -> bytes:
        """As it lies in the folder."""
        return f"{canonical({'format': FORMAT, **asdict(self)})}\n".encode()

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Raise InvalidInput."""
        try:
            said: dict[str, Any] = exactly(dict, json.loads(octets))
            if said.pop("format") != FORMAT:
                raise InvalidInput("the manifest is of another format: take the command of the release that made it")
            logs = [ExportedLog(**exactly(dict, each)) for each in exactly(list, said.pop("logs"))]
            files = {exactly(str, name): exactly(str, digest) for name, digest in exactly(dict, said["files"]).items()}
            made = cls(**{**said, "logs": tuple(logs), "files": files})
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidInput("the manifest cannot be parsed") from error
        numbers = (made.made_at, made.begin, made.end, made.pruned_until, made.since_ms, made.until_ms)
        for number in (*numbers, *(number for each in made.logs for number in (each.first_seq, each.size))):
            if not 0 <= exactly(int, number) <= _MOST:
                raise InvalidInput("the manifest has a number out of range")
        if not 1 <= made.begin <= made.end or not made.logs or _DIGEST.fullmatch(exactly(str, made.before)) is None:
            raise InvalidInput("the manifest names no records, no log, or no digest before them")
        for each in made.logs:
            if _ID.fullmatch(each.id) is None or not exactly(str, each.reason):
                raise InvalidInput("the manifest names a log that is none")
        return made


def statement(manifest: bytes) -> str:
    """The text that is signed for a manifest."""
    return f"{_HEADER}\n{hashlib.sha256(manifest).hexdigest()}\n"
