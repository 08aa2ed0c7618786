"""What witnesses vouch for in an exported folder: up to which record, and as of when.

A cosignature says that the witness has seen the log begin with what it cosigned before, up to this head. So each of
the witnesses that the auditor believes must have cosigned each log of the folder, and what it cosigned must be how the
log begins.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sojourn.errors import InvalidInput
from sojourn.evidence.faults import Faults
from sojourn.evidence.manifest import COSIGNED, ExportedLog
from sojourn.evidence.tree import ExportedTree
from sojourn.tlog.checkpoints import Checkpoint, Proof
from sojourn.tlog.notes import Note, VerifierKey

CHECKPOINT: Final = "checkpoint"


@dataclass(frozen=True, slots=True)
class Witnessed:
    """What one witness vouches for of one log: `size` leaves, the last of which is `until_seq`; 0: nothing.

    `at`: when it has cosigned that, by its clock, seconds since the epoch. `not_yet`: records of the log behind it.
    """

    witness: str
    origin: str
    size: int = 0
    until_seq: int = 0
    at: int = 0
    not_yet: int = 0


class WitnessCheck:
    """Looks for cosignatures of these witnesses. By which of its keys the log has signed what they have is not asked:
    what was cosigned must be how the log begins.
    """

    def __init__(self, witnesses: Sequence[VerifierKey], faults: Faults) -> None:
        self._witnesses = witnesses
        self._faults = faults
        self.found: list[Witnessed] = []

    def log(self, log: ExportedLog, tree: ExportedTree, notes: Iterable[bytes]) -> None:
        """Look at what is in the folder of one log: its checkpoint, and what was cosigned."""
        if not self._witnesses:
            return
        parsed = list(self._parsed(notes))
        for witness in self._witnesses:
            self.found.append(self._of(witness, log, tree, parsed))

    def _parsed(self, notes: Iterable[bytes]) -> Iterable[tuple[Checkpoint, Note]]:
        for octets in notes:
            try:
                note = Note.parse(octets)
                yield Checkpoint.parse(note.text), note
            except InvalidInput as error:
                self._faults.add("witness_wrong", f"a cosigned checkpoint cannot be read: {error.public}")

    def _of(
        self, witness: VerifierKey, log: ExportedLog, tree: ExportedTree, notes: Sequence[tuple[Checkpoint, Note]]
    ) -> Witnessed:
        best = Witnessed(witness.name, log.origin, not_yet=log.size)
        said = False
        for checkpoint, note in notes:
            if not checkpoint.size or not note.cosignatures(witness):  # a head of no leaves vouches for nothing
                continue
            said = True
            if (at := self._good(witness, log, tree, checkpoint, note)) is not None and checkpoint.size >= best.size:
                end = log.first_seq + checkpoint.size - 1
                best = Witnessed(witness.name, log.origin, checkpoint.size, end, at, log.size - checkpoint.size)
        if not said:
            self._faults.add("witness_missing", f"the witness {witness.name!r} has not cosigned the log {log.origin!r}")
        return best

    def _good(
        self, witness: VerifierKey, log: ExportedLog, tree: ExportedTree, checkpoint: Checkpoint, note: Note
    ) -> int | None:
        """When a note was cosigned that is all that it should be; None: it is not, and why is among the faults."""
        wrong = ""
        at = note.cosigned_at(witness)
        if checkpoint.origin != log.origin:
            wrong = "what it has cosigned is of another log"
        elif at is None:
            wrong = "its cosignature is not good"
        elif checkpoint.size > log.size:
            said = f"{checkpoint.size} records of the log {log.origin!r}, which has {log.size}"
            self._faults.add("witness_ahead", f"the witness {witness.name!r} has cosigned {said}")
            return None
        elif (begins := tree.begins_with(checkpoint)) is None:
            self._faults.add("witness_unproved", f"what the witness {witness.name!r} has cosigned was pruned")
            return None
        elif not begins:
            wrong = "the log does not begin with what it has cosigned"
        if wrong:
            self._faults.add("witness_wrong", f"the witness {witness.name!r}: {wrong}")
            return None
        return at

    def proof(self, proof: Proof, checkpoint: Checkpoint) -> None:
        """Look at the checkpoint in a proof, which is good otherwise or has its faults already."""
        for witness in self._witnesses:
            at = proof.note.cosigned_at(witness)
            if at is None:
                said = bool(proof.note.cosignatures(witness))
                why = "its cosignature is not good" if said else "it has not cosigned the proof's checkpoint"
                self._faults.add("witness_wrong" if said else "witness_missing", f"the witness {witness.name!r}: {why}")
                self.found.append(Witnessed(witness.name, checkpoint.origin))
            else:
                self.found.append(Witnessed(witness.name, checkpoint.origin, checkpoint.size, at=at))


def notes_of(log: ExportedLog, names: Iterable[str], read: Callable[[str], bytes]) -> list[bytes]:
    """The checkpoint of a log, and what was cosigned of it, by the names in the manifest."""
    cosigned = sorted(name for name in names if name.startswith(f"{log.folder}/{COSIGNED}"))
    return [read(name) for name in (f"{log.folder}/{CHECKPOINT}", *cosigned)]
