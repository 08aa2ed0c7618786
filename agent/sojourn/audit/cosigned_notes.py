"""Checkpoints of the journal's logs that witnesses have cosigned: of each log and witness the last one.

They lie beside the database, `cosigned/LOGID/KEYID` in the data folder, as notes: the checkpoint with the log's
signatures and the witness's. No database that is put back takes them with it.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sojourn.errors import InvalidInput, StoreFailed
from sojourn.files import atomic
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.notes import COSIGNATURE, NOTE_MAX_BYTES, Note, VerifierKey
from sojourn.tlog.tiles import WIDTH

FOLDER: Final = "cosigned"
_KEY_ID: Final = re.compile("[0-9a-f]{8}")


def id_of(origin: str) -> str:
    """The last part of a log's origin, by which its files are named."""
    return origin.rpartition("/")[2]


def key_id_of(witness: VerifierKey) -> str:
    """What a witness's files are named by: the ID of its key, in hex."""
    return witness.key_id(COSIGNATURE).hex()


class CosignedNotes:
    """Kept in memory too. Signatures are verified before `keep`, and by whoever is shown them."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the data folder."""
        self._folder = folder / FOLDER
        self._notes: dict[str, dict[str, tuple[Checkpoint, Note]]] = {}  # by the log's origin and the witness's key ID
        self._load()

    def of(self, origin: str) -> dict[str, Note]:
        """Those of a log, by the ID of the witness's key."""
        return {key_id: note for key_id, (_, note) in sorted(self._notes.get(origin, {}).items())}

    def all(self) -> dict[str, dict[str, Note]]:
        """Those of all logs, by their origins."""
        return {origin: self.of(origin) for origin in self._notes}

    def last(self, origin: str, witness: VerifierKey) -> tuple[Checkpoint, Note] | None:
        """The one that a witness has cosigned; None: there is none, or its cosignature is not good."""
        found = self._notes.get(origin, {}).get(key_id_of(witness))
        return None if found is None or found[1].cosigned_at(witness) is None else found

    def keep(self, checkpoint: Checkpoint, note: Note, witness: VerifierKey) -> None:
        """Have a note on disk as the last one of its log and witness. Blocks. Raise StoreFailed."""
        key_id = key_id_of(witness)
        folder, octets = self._folder / id_of(checkpoint.origin), str(note).encode()
        try:
            Note.parse(octets)
        except InvalidInput as error:
            raise StoreFailed("a cosigned checkpoint could not be read again", detail=error.public) from error
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic.write(folder / key_id, octets)
        except OSError as error:
            raise StoreFailed("a cosigned checkpoint cannot be written", detail=str(error)) from error
        of_log = self._notes.get(checkpoint.origin, {})
        self._notes[checkpoint.origin] = {**of_log, key_id: (checkpoint, note)}

    def tiles(self, origin: str) -> frozenset[int]:
        """Tiles of leaves without which no proof leads on from what witnesses have: any thread may ask."""
        sizes = [checkpoint.size for checkpoint, _ in self._notes.get(origin, {}).values()]
        return frozenset(size // WIDTH for size in sizes if size % WIDTH)

    def for_record(self, origin: str, index: int) -> Note | None:
        """The cosigned checkpoint that has this leaf and the most witnesses, of those the latest, with all of them."""
        by_text: dict[str, tuple[int, int, Note]] = {}
        for key_id, (checkpoint, note) in self._notes.get(origin, {}).items():
            if index < checkpoint.size:
                own = _of_one_witness(note, origin, key_id)
                count, _, merged = by_text.get(note.text, (0, 0, own))
                by_text[note.text] = (count + 1, checkpoint.size, merged.with_lines(own.lines))
        found = max(by_text.values(), key=lambda each: each[:2], default=None)
        return None if found is None else found[2]

    def _load(self) -> None:
        for path in self._files():
            try:
                with path.open("rb") as file:
                    note = Note.parse(file.read(NOTE_MAX_BYTES))
                checkpoint = Checkpoint.parse(note.text)
            except (OSError, InvalidInput):
                continue  # the witness is asked again
            if id_of(checkpoint.origin) == path.parent.name:
                self._notes.setdefault(checkpoint.origin, {})[path.name] = (checkpoint, note)

    def _files(self) -> Iterable[Path]:
        try:
            return [each for each in self._folder.glob("*/*") if _KEY_ID.fullmatch(each.name)]
        except OSError:
            return ()


def _of_one_witness(note: Note, origin: str, key_id: str) -> Note:
    """A kept note with the log's signatures and one of the witness by whose key it is named."""
    own = tuple(line for line in note.lines if line.name == origin)
    by_witness = [line for line in note.lines if line.name != origin and line.key_id.hex() == key_id]
    return Note(note.text, (*own, *by_witness[-1:]))
