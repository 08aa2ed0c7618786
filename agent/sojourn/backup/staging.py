"""A restore, whole or not at all: what is to be put in place lies ready in a folder of its own, and is then moved.

Until the note `ready` is on disk nothing of the data folder is touched, and what lies in the staging folder is thrown
away. From then on the moves are finished, by whoever comes next: the command, a second one, or the agent at its start.
The last of them leaves the note as `restored`, for the agent: nothing of before may verify (restoration.py).
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from sojourn.authority.below import INTERMEDIATES_FILE, ROOTS_FILE
from sojourn.backup.archive import sync_folder
from sojourn.errors import CannotStart, InvalidInput
from sojourn.files import atomic
from sojourn.files.data_folder import DATABASE, KEYS
from sojourn.jose.canonical_json import exactly

STAGING, READY, RESTORED = ".restore", "ready", "restored"
ROOT = "root.pem"
REPLACED_KEYS = ("jwt.pem", "jwt-rs256.pem", "wit.pem", INTERMEDIATES_FILE)  # by which nothing of before may verify


@dataclass(frozen=True, slots=True)
class RestoreNote:
    """What a restore tells the agent. Times are seconds since the epoch; 0 and -1: it is not known."""

    file: str  # what was restored
    made_at: int  # when that was made
    restored_at: int
    epoch_at_least: int  # the number of the next start
    lost_until: int  # the time of the last record that is gone
    lost_records: int
    new_root: bool

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Raise CannotStart."""
        try:
            said: dict[str, Any] = exactly(dict, json.loads(content))
            return cls(
                file=exactly(str, said["file"]),
                made_at=exactly(int, said["made_at"]),
                restored_at=exactly(int, said["restored_at"]),
                epoch_at_least=exactly(int, said["epoch_at_least"]),
                lost_until=exactly(int, said["lost_until"]),
                lost_records=exactly(int, said["lost_records"]),
                new_root=exactly(bool, said["new_root"]),
            )
        except (InvalidInput, KeyError, ValueError) as error:
            raise CannotStart("the note of a restore cannot be parsed: restore the backup once more") from error

    def written(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def begin(folder: Path) -> Path:
    """A staging folder that is empty. Raise OSError."""
    staging = folder / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    (staging / KEYS).mkdir(mode=0o700, parents=True)
    staging.chmod(0o700)
    return staging


def commit(folder: Path, note: RestoreNote) -> None:
    """From now on what is staged is restored, also if nobody finishes it now. Raise OSError."""
    staging = folder / STAGING
    sync_folder(staging / KEYS)
    sync_folder(staging)
    sync_folder(folder)
    atomic.write(staging / READY, note.written())


def finish(folder: Path) -> bool:
    """Finish a restore that was committed, and throw away one that was not; say whether one was. Raise CannotStart."""
    staging = folder / STAGING
    if not staging.is_dir():
        return False
    try:
        content = (staging / READY).read_bytes()
    except FileNotFoundError:
        shutil.rmtree(staging, ignore_errors=True)
        return False
    note = RestoreNote.parse(content)
    try:
        _move(folder, staging, note)
    except OSError as error:
        raise CannotStart(
            f"a restore cannot be finished in {str(folder)!r}: {error.strerror}; see to its disk, and start again",
            detail=str(error),
        ) from error
    return True


def _move(folder: Path, staging: Path, note: RestoreNote) -> None:
    keys = folder / KEYS
    keys.mkdir(mode=0o700, exist_ok=True)
    if (staging / DATABASE).exists():
        for end in ("-wal", "-shm", "-journal"):  # of the database that goes: they would be played into the new one
            (folder / f"{DATABASE}{end}").unlink(missing_ok=True)
        os.replace(staging / DATABASE, folder / DATABASE)
    for each in sorted((staging / KEYS).iterdir()):
        os.replace(each, keys / each.name)
    drop_keys(folder, root=note.new_root)
    sync_folder(folder)
    atomic.write(folder / RESTORED, note.written())
    (staging / READY).unlink()
    sync_folder(staging)
    shutil.rmtree(staging, ignore_errors=True)


def drop_keys(folder: Path, *, root: bool = False) -> None:
    """Take away the keys by which SVIDs of before would verify; `root`: all of them. Raise OSError."""
    keys = folder / KEYS
    if not keys.is_dir():
        return
    for name in (*REPLACED_KEYS, *([ROOT, ROOTS_FILE] if root else [])):
        (keys / name).unlink(missing_ok=True)
    sync_folder(keys)


def restored(folder: Path) -> RestoreNote | None:
    """The note of a restore that no agent has heard of yet. Raise CannotStart."""
    try:
        return RestoreNote.parse((folder / RESTORED).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotStart(f"{str(folder / RESTORED)!r} cannot be read: {error.strerror}") from error


def heard(folder: Path) -> None:
    """An agent has done what the note asks for. Raise CannotStart."""
    try:
        (folder / RESTORED).unlink(missing_ok=True)
        sync_folder(folder)
    except OSError as error:
        raise CannotStart(f"{str(folder / RESTORED)!r} cannot be removed: {error.strerror}") from error
