"""Checking an exported folder, or the proof of one record: with a key and nothing else of the agent's.

Whatever is wrong is a fault, and so is whatever cannot be shown: what has no signature passes as little as what has a
wrong one.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from sojourn.audit.journal import Record
from sojourn.audit.leaves import record_of
from sojourn.errors import InvalidInput, NotFound
from sojourn.evidence import policy_sets
from sojourn.evidence.faults import Faults
from sojourn.evidence.manifest import MANIFEST, MANIFEST_NOTE, RECORDS, ExportedLog, Manifest, statement
from sojourn.evidence.records import ExportedRecords, Told
from sojourn.evidence.timestamps import StampCheck, Stamped, names_of
from sojourn.evidence.tree import ExportedTree
from sojourn.evidence.trust import Trust, has_record
from sojourn.evidence.witnessed import WitnessCheck, Witnessed, notes_of
from sojourn.tlog.checkpoints import Checkpoint, Proof
from sojourn.tlog.notes import NOTE_MAX_BYTES, Note, VerifierKey

_MANIFEST_MAX: Final = 16 << 20
_FILE_MAX: Final = 16 << 20  # but the records
Progress = Callable[[int, int], None]


def read_file(folder: Path, name: str, most: int = _FILE_MAX) -> bytes:
    """At most so many bytes of a file of an export. Raise OSError if it is none that is regular, or not of the folder,
    ValueError if that is no name.
    """
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise PermissionError(name)
    with open(os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise PermissionError(name)
        return file.read(most)


@dataclass(slots=True)
class Verdict:
    """What was found. `signed_at`: by origin, when each log's last checkpoint was made, seconds since the epoch."""

    faults: Faults = field(default_factory=Faults)
    manifest: Manifest | None = None
    signed_at: dict[str, int] = field(default_factory=dict)
    records: int = 0
    replayed: int = 0  # decisions whose inputs are those that were recorded
    decided_wrong: int = 0  # decisions that are not what was recorded
    decided_wrong_seqs: list[int] = field(default_factory=list)  # the first of them
    not_replayed: dict[str, int] = field(default_factory=dict)  # those of which that cannot be told, by why
    policy_sets: list[str] = field(default_factory=list)  # whose texts are there
    sets_missing: list[str] = field(default_factory=list)  # that records name, and whose texts are not
    record: Record | None = None  # of a proof
    witnessed: list[Witnessed] = field(default_factory=list)  # of each witness that was given, by log
    stamped: list[Stamped] = field(default_factory=list)  # the oldest of a log first

    @property
    def good(self) -> bool:
        return not self.faults.count


class FolderCheck:
    """One check of one folder."""

    def __init__(
        self,
        folder: Path,
        keys: Sequence[VerifierKey],
        after: bytes | None,
        progress: Progress,
        witnesses: Sequence[VerifierKey] = (),
        tsa: Sequence[x509.Certificate] = (),
        told: Told = lambda _: None,
    ) -> None:
        """`after`: an older checkpoint, which the log that is signed now must begin with. `witnesses`: those that must
        have cosigned. `tsa`: roots, one of which must vouch for each time stamp; none: stamps are left alone. `told`
        hears of each record, whatever is wrong with it, and returns its fields if it has parsed them.

        """
        self._folder = folder
        self._trust = Trust(keys)
        self._after = after
        self._progress = progress
        self._told = told
        self._verdict = Verdict()
        self._faults = self._verdict.faults
        self._witnesses = WitnessCheck(witnesses, self._faults)
        self._stamps = StampCheck(tsa, self._faults)

    def run(self) -> Verdict:
        """Raise NotFound where there is nothing to check."""
        if not (self._folder / MANIFEST).is_file():
            raise NotFound(f"there is nothing to check in {str(self._folder)!r}: it has no {MANIFEST}")
        octets = self._read(MANIFEST, _MANIFEST_MAX)
        try:
            manifest = Manifest.parse(octets)
        except InvalidInput as error:
            self._faults.add("manifest_unreadable", error.public)
            return self._verdict
        self._verdict.manifest = manifest
        for log in manifest.logs:
            self._follow(log, manifest)
        self._check_manifest(octets, manifest)
        self._check_files(manifest)
        trees = [(log, ExportedTree(self._folder, log, manifest.pruned_until)) for log in manifest.logs if log.size]
        trees = [(log, tree) for log, tree in trees if self._check_log(log, tree)]
        self._check_records(manifest, trees)
        if self._after is not None:
            self._check_after(self._after, manifest, trees)
        # A log that is said to have no records was not looked at so far; whoever vouches for each log must for it too.
        empty = [(log, ExportedTree(self._folder, log, manifest.pruned_until)) for log in manifest.logs if not log.size]
        for log, tree in [*trees, *empty]:
            notes = notes_of(log, manifest.files, lambda name: self._read(name, NOTE_MAX_BYTES))
            self._witnesses.log(log, tree, notes if log.size else filter(None, notes))
            self._stamps.log(log, tree, self._stamps_of(log, manifest))
        self._verdict.witnessed, self._verdict.stamped = self._witnesses.found, self._stamps.found
        return self._verdict

    def _stamps_of(self, log: ExportedLog, manifest: Manifest) -> Iterator[tuple[str, bytes, bytes]]:
        for name in names_of(log, manifest.files):
            yield name, self._read(f"{name}.note", NOTE_MAX_BYTES), self._read(f"{name}.tsr", _FILE_MAX)

    def _check_files(self, manifest: Manifest) -> None:
        """All but the records."""
        sets = {}
        for name, digest in manifest.files.items():
            if name == RECORDS:
                continue
            content = self._read(name, _FILE_MAX)
            if hashlib.sha256(content).hexdigest() != digest:
                self._faults.add("file_changed", f"{name[:200]!r} is not what the manifest says")
            if (named := policy_sets.set_of(name)) is not None:
                sets[named] = content
        self._verdict.policy_sets = sorted(named for named, content in sets.items() if self._check_set(named, content))

    def _check_set(self, named: str, content: bytes) -> bool:
        def text(digest: str) -> bytes:
            found = self._read(policy_sets.text_path_of(digest), _FILE_MAX)
            if hashlib.sha256(found).hexdigest() != digest:
                raise InvalidInput("a text of it is another")
            return found

        try:
            good = policy_sets.digest_of_set(policy_sets.parse(content), text) == named
        except InvalidInput:
            good = False
        if not good:
            self._faults.add("policy_set_wrong", f"the files of {named!r} are not those of that set")
        return good

    def _read(self, name: str, most: int) -> bytes:
        """A file of the folder; nothing, and a fault, if it is not there."""
        try:
            return read_file(self._folder, name, most)
        except (OSError, ValueError):
            self._faults.add("file_missing", f"{name[:200]!r} is not there, or cannot be read")
            return b""

    def _follow(self, log: ExportedLog, manifest: Manifest) -> None:
        if not self._trust.has(log.origin):
            self._faults.add("key_missing", f"no key of the log {log.origin!r} was given; it began: {log.reason}")
            return
        rotations = sorted(name for name in manifest.files if name.startswith(f"{log.folder}/rotation-"))
        followed = [self._trust.follow(self._read(name, NOTE_MAX_BYTES * 2), log.origin) for name in rotations]
        # Those before the key that was given lead to it, and need not be shown; none is between two that do.
        if sorted(followed) != followed:
            self._faults.add("rotation_unproved")

    def _check_manifest(self, octets: bytes, manifest: Manifest) -> None:
        try:
            note = Note.parse(self._read(MANIFEST_NOTE, NOTE_MAX_BYTES))
        except InvalidInput as error:
            self._faults.add("manifest_not_signed", f"the manifest is not signed: {error.public}")
            return
        if note.text != statement(octets):
            self._faults.add("manifest_changed")
        if self._trust.signer(note, manifest.logs[-1].origin) is None:
            self._faults.add("manifest_not_signed")

    def _check_log(self, log: ExportedLog, tree: ExportedTree) -> bool:
        """False: what the log's records are to be is nobody's word."""
        try:
            note = Note.parse(self._read(f"{log.folder}/checkpoint", NOTE_MAX_BYTES))
            checkpoint = Checkpoint.parse(note.text)
        except InvalidInput as error:
            self._faults.add("checkpoint_unreadable", error.public)
            return False
        if (checkpoint.origin, checkpoint.size) != (log.origin, log.size):
            self._faults.add("checkpoint_unreadable", "the checkpoint is not the one that the manifest names")
            return False
        key = self._trust.signer(note, log.origin)
        if key is None:
            # How large the tree is said to be is nobody's word then: it is not gone through.
            self._faults.add("checkpoint_not_signed")
            return False
        if (at := note.cosigned_at(key)) is None:
            self._faults.add("checkpoint_not_timed")
        else:
            self._verdict.signed_at[log.origin] = at
        tree.check(checkpoint, self._faults)
        return True

    def _check_records(self, manifest: Manifest, trees: Sequence[tuple[ExportedLog, ExportedTree]]) -> None:
        records = ExportedRecords(manifest, trees, self._faults, self._told)
        try:
            records.check(self._folder / RECORDS, self._progress)
        except OSError:
            self._faults.add("file_missing", f"{RECORDS!r} is not there, or cannot be read")
        self._verdict.records = records.count
        self._verdict.replayed = records.decisions.replayed
        self._verdict.decided_wrong = records.decisions.wrong
        self._verdict.decided_wrong_seqs = records.decisions.wrong_seqs
        self._verdict.not_replayed = dict(records.decisions.unknown)
        self._verdict.sets_missing = sorted(records.decisions.sets.difference(self._verdict.policy_sets))
        if records.sha256 != manifest.files.get(RECORDS):
            self._faults.add("file_changed", f"{RECORDS!r} is not what the manifest says")

    def _check_after(
        self, octets: bytes, manifest: Manifest, trees: Sequence[tuple[ExportedLog, ExportedTree]]
    ) -> None:
        try:
            note = Note.parse(octets)
            older = Checkpoint.parse(note.text)
        except InvalidInput as error:
            self._faults.add("after_unreadable", error.public)
            return
        if self._trust.signer(note, older.origin) is None:
            self._faults.add("after_not_signed")
        elif older.origin != manifest.logs[-1].origin or not trees or trees[-1][0] is not manifest.logs[-1]:
            self._faults.add("log_restarted", f"the older checkpoint is of the log {older.origin!r}, which is over")
        else:
            trees[-1][1].extends(older, self._faults)


def check_proof(octets: bytes, keys: Sequence[VerifierKey], witnesses: Sequence[VerifierKey] = ()) -> Verdict:
    """Check the proof of one record."""
    verdict = Verdict()
    faults, trust = verdict.faults, Trust(keys)
    try:
        proof = Proof.parse(octets)
        verdict.record = record_of(proof.extra)
        checkpoint = Checkpoint.parse(proof.note.text)
    except InvalidInput as error:
        faults.add("proof_unreadable", error.public)
        return verdict
    verdict.records = 1
    key = trust.signer(proof.note, checkpoint.origin)
    if not trust.has(checkpoint.origin):
        faults.add("key_missing", f"no key of the log {checkpoint.origin!r} was given")
    elif key is None:
        faults.add("checkpoint_not_signed")
    elif (at := proof.note.cosigned_at(key)) is None:
        faults.add("checkpoint_not_timed")
    else:
        verdict.signed_at[checkpoint.origin] = at
    if not has_record(proof, checkpoint.origin):
        faults.add("proof_wrong", seq=verdict.record.seq)
    cosigned = WitnessCheck(witnesses, faults)
    cosigned.proof(proof, checkpoint)
    verdict.witnessed = cosigned.found
    return verdict


def summary(verdict: Verdict) -> dict[str, Any]:
    """A verdict as it is printed in JSON."""
    manifest = verdict.manifest
    value: dict[str, Any] = {"good": verdict.good, "records": verdict.records, **verdict.faults.summary()}
    if verdict.stamped:
        value["timestamps"] = [asdict(each) for each in verdict.stamped]
    if verdict.witnessed:
        value["witnesses"] = [{**asdict(each), "at": each.at or None} for each in verdict.witnessed]
    if manifest is not None:
        value["decisions"] = {"replayed": verdict.replayed, "not_replayed": verdict.not_replayed}
        value["policy_sets"] = {"here": verdict.policy_sets, "missing": verdict.sets_missing}
        value |= {"first_seq": manifest.begin, "last_seq": manifest.end, "pruned_until": manifest.pruned_until}
        value["logs"] = [
            {
                "origin": log.origin,
                "first_seq": log.first_seq,
                "size": log.size,
                "reason": log.reason,
                "signed_at": verdict.signed_at.get(log.origin),
            }
            for log in manifest.logs
        ]
    return value
