"""Which keys are believed: those that were given, and those that followed on them, by proof."""

import json
from collections.abc import Iterable

from sojourn.audit.leaves import leaf_of, record_of
from sojourn.errors import InvalidInput
from sojourn.tlog.checkpoints import Checkpoint, Proof
from sojourn.tlog.merkle import leaf_hash, root_by_inclusion
from sojourn.tlog.notes import Note, VerifierKey

ROTATED = "audit_key_rotated"


class Trust:
    """Keys by the origin of their log. A log may have had several."""

    def __init__(self, keys: Iterable[VerifierKey]) -> None:
        self._keys: dict[str, list[VerifierKey]] = {}
        for key in keys:
            self._keys.setdefault(key.name, []).append(key)

    def has(self, origin: str) -> bool:
        return origin in self._keys

    def signer(self, note: Note, origin: str) -> VerifierKey | None:
        """The key of this log that has signed a note; the newest, if several have."""
        return next((key for key in reversed(self._keys.get(origin, [])) if note.is_signed(key)), None)

    def follow(self, octets: bytes, origin: str) -> bool:
        """Believe the key that follows on one that is believed, if this is the proof of it.

        The record names both, is in the log, and both have signed the checkpoint that has it.
        """
        try:
            proof = Proof.parse(octets)
            record = record_of(proof.extra)
            said = json.loads(record.fields)
            new = VerifierKey.parse(str(said.get("vkey")))
        except (InvalidInput, ValueError, RecursionError):
            return False
        before = next((key for key in self._keys.get(origin, []) if str(key) == said.get("vkey_before")), None)
        if before is None or record.event != ROTATED or new.name != origin or not has_record(proof, origin):
            return False
        if not proof.note.is_signed(before) or not proof.note.is_signed(new):
            return False
        if new not in self._keys[origin]:
            self._keys[origin].append(new)
        return True


def has_record(proof: Proof, origin: str) -> bool:
    """Whether a proof leads from its record to its checkpoint, which is of this log. No signature is looked at."""
    try:
        checkpoint, leaf = Checkpoint.parse(proof.note.text), leaf_hash(leaf_of(proof.extra))
    except InvalidInput:
        return False
    found = root_by_inclusion(leaf, proof.index, checkpoint.size, proof.path)
    return checkpoint.origin == origin and found == checkpoint.root
