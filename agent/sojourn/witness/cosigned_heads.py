"""What a witness has cosigned: of each log the last head, on disk before anybody has the cosignature.

A file for each log, named by the SHA-256 of its origin: the checkpoint with the log's signatures and the witness's own.
`origins` lists whose heads were cosigned, a line each: a log that is there and has no head is not taken for a new one.
Beside them are heads that contradict those, and some that nobody has proved, as the log has signed them: they are
evidence, and never cosigned.
"""

import hashlib
import os
import threading
from pathlib import Path
from typing import Final

from sojourn.errors import InvalidInput, StoreFailed
from sojourn.files import atomic
from sojourn.operating_limits import WITNESS_CONFLICTS, WITNESS_UNPROVED
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.notes import NOTE_MAX_BYTES, Note, VerifierKey
from sojourn.witness.witness_key import HEADS, ORIGINS

CONFLICTS: Final = "conflicts"
UNPROVED: Final = "unproved"
_ROOM: Final = {CONFLICTS: WITNESS_CONFLICTS, UNPROVED: WITNESS_UNPROVED}


class CosignedHeads:
    """Blocks; one call at a time for each log. The folder is claimed, so that nobody else writes there."""

    def __init__(self, folder: Path, key: VerifierKey) -> None:
        """`key`: the witness's own, by which its files are known for its own."""
        self._folder = folder
        self._key = key
        self._known: dict[str, Checkpoint] = {}
        self._origins: frozenset[str] | None = None  # whose heads were cosigned; None: not read yet
        self._listing = threading.Lock()

    def last(self, origin: str) -> Checkpoint | None:
        """The last head of a log that was cosigned; None: there is none. Raise StoreFailed."""
        if origin in self._known:
            return self._known[origin]
        path = self._path(origin)
        try:
            # What a run before has written may not be on disk yet, if that run was killed before it had cosigned it.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                os.fsync(file.fileno())
                octets = file.read(NOTE_MAX_BYTES)
            _sync(path.parent)
        except FileNotFoundError:
            if origin in self._listed():
                raise StoreFailed(f"what was cosigned of {origin!r} is gone: {path}") from None
            return None
        except OSError as error:
            raise StoreFailed(f"what was cosigned of {origin!r} cannot be read", detail=str(error)) from error
        found = self._parsed(origin, octets)
        self._list(origin)  # a run that was killed as it wrote its first head has not
        self._known[origin] = found
        return found

    def keep(self, checkpoint: Checkpoint, note: Note) -> None:
        """Have a head on disk as the last one of its log. Raise StoreFailed: nothing may be cosigned then."""
        octets, origin = str(note).encode(), checkpoint.origin
        if self._parsed(origin, octets) != checkpoint:
            raise StoreFailed(f"what is to be cosigned of {origin!r} is another head")
        try:
            atomic.write(self._path(origin), octets)
            # Behind it, so that no kill leaves a log listed without a head: who has no answer has no cosignature.
            self._list(origin)
        except (OSError, StoreFailed) as error:
            # Whether it is on disk nobody can tell: it is read again, and synced, before anything follows on it.
            self._known.pop(origin, None)
            raise StoreFailed("what is to be cosigned cannot be written", detail=str(error)) from error
        self._known[origin] = checkpoint

    def keep_conflict(self, origin: str, note: Note) -> str | None:
        """Keep a head that a log has signed against one of the same size. Return as `_keep_beside` does."""
        return self._keep_beside(CONFLICTS, origin, note)

    def keep_unproved(self, origin: str, note: Note) -> str | None:
        """Keep a head that a log has signed, and nobody has proved. Return as `_keep_beside` does."""
        return self._keep_beside(UNPROVED, origin, note)

    def _keep_beside(self, kind: str, origin: str, note: Note) -> str | None:
        """Return the new file; '' if it cannot be written; None if it is there, or as many of the log as have room."""
        folder, of_log = self._folder / kind, f"{_digest(origin)[:16]}-"
        path = folder / f"{of_log}{_digest(note.text)}.note"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if path.exists() or sum(1 for _ in folder.glob(f"{of_log}*")) >= _ROOM[kind]:
                return None
            atomic.write(path, str(note).encode())
        except OSError:
            return ""  # it is refused all the same, and the log line says what it was
        return str(path)

    def _parsed(self, origin: str, octets: bytes) -> Checkpoint:
        """The head in a file of this witness. Raise StoreFailed."""
        path = self._path(origin)
        try:
            note = Note.parse(octets)
            found = Checkpoint.parse_extended(note.text)
        except InvalidInput as error:
            raise StoreFailed(f"what was cosigned of {origin!r} is damaged: {path}") from error
        if found.origin != origin or note.cosigned_at(self._key) is None:
            raise StoreFailed(f"what was cosigned of {origin!r} is not this witness's: {path}")
        return found

    def _listed(self) -> frozenset[str]:
        """The logs of which heads were cosigned. Raise StoreFailed."""
        if self._origins is None:
            path = self._folder / ORIGINS
            try:
                self._origins = frozenset(path.read_text("utf-8").split("\n")[:-1])
            except (OSError, ValueError) as error:
                raise StoreFailed(f"of which logs heads were cosigned cannot be read: {path}") from error
        return self._origins

    def _list(self, origin: str) -> None:
        """Have a log on disk among those of which heads were cosigned. Raise StoreFailed."""
        with self._listing:
            if origin in (before := self._listed()):
                return
            listed = before | {origin}
            try:
                atomic.write(self._folder / ORIGINS, "".join(f"{each}\n" for each in sorted(listed)).encode())
            except OSError as error:
                self._origins = None  # whether it is on disk nobody can tell
                raise StoreFailed("of which logs heads were cosigned cannot be written", detail=str(error)) from error
            self._origins = listed

    def _path(self, origin: str) -> Path:
        return self._folder / HEADS / _digest(origin)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
