"""The records of an exported folder: whether each follows on the one before, and is the one that was signed."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sojourn.audit.journal import Record
from sojourn.audit.leaves import chained, leaf_of, record_of
from sojourn.errors import InvalidInput
from sojourn.evidence.decisions import Decisions
from sojourn.evidence.faults import Faults
from sojourn.evidence.manifest import ExportedLog, Manifest
from sojourn.evidence.tree import ExportedTree
from sojourn.tlog.merkle import HASH_BYTES, leaf_hash
from sojourn.tlog.tiles import WIDTH

_LINE_MAX: Final = 64 << 20
Told = Callable[[Record], Mapping[str, Any] | None]
_TOLD: Final = 20_000  # records between two words of progress


class ExportedRecords:
    """One walk along `records.ndjson`. `count`: of the records that were read; `sha256`: of the file."""

    def __init__(
        self,
        manifest: Manifest,
        trees: Sequence[tuple[ExportedLog, ExportedTree]],
        faults: Faults,
        told: Told = lambda _: None,
    ) -> None:
        """`told` hears of each record, and returns its fields if it has parsed them."""
        self._manifest = manifest
        self._trees = trees
        self._faults = faults
        self._told = told
        self.decisions = Decisions(faults)
        self.count = 0
        self.sha256 = ""

    def check(self, file: Path, progress: Callable[[int, int], None]) -> None:
        """Raise OSError if the file cannot be read."""
        digest, seq, before = hashlib.sha256(), self._manifest.begin, self._manifest.before
        total = self._manifest.end - seq + 1
        with file.open("rb") as lines:
            while line := lines.readline(_LINE_MAX):
                digest.update(line)
                seq, before = self._record(line, seq, before)
                if self.count % _TOLD == 0:
                    progress(self.count, total)
        if seq <= self._manifest.end:
            self._faults.add("record_missing", f"records from {seq} to {self._manifest.end} are missing", seq)
        self.sha256 = digest.hexdigest()
        progress(self.count, total)

    def _record(self, line: bytes, seq: int, before: str) -> tuple[int, str]:
        """Look at a record that is to be `seq`, behind the digest `before`. Return the same for the next one."""
        self.count += 1
        try:
            if not line.endswith(b"\n"):
                raise InvalidInput("the line has no end")
            record = record_of(line[:-1])
        except InvalidInput:
            self._faults.add("record_unreadable", seq=seq)
            return seq + 1, ""
        if record.seq != seq:
            self._faults.add("record_missing", f"record {record.seq} stands where {seq} is to be", seq)
        elif before and not chained(record, before):
            self._faults.add("record_changed", seq=seq)
        if not self._manifest.begin <= record.seq <= self._manifest.end:
            self._faults.add("record_in_no_log", "a record is beyond those that the manifest names", record.seq)
            return seq, before
        self._signed(line[:-1], record.seq)
        self.decisions.read(record, self._told(record))
        return record.seq + 1, record.digest

    def _signed(self, line: bytes, seq: int) -> None:
        for log, tree in self._trees:
            if log.first_seq <= seq <= log.end_seq:
                tile_index, at = divmod(seq - log.first_seq, WIDTH)
                try:
                    found = tree.tile(0, tile_index)[at * HASH_BYTES : (at + 1) * HASH_BYTES]
                except KeyError as error:
                    self._faults.add("tile_missing", str(error.args[0]), seq)
                    return
                if found != leaf_hash(leaf_of(line)):
                    self._faults.add("record_not_signed", seq=seq)
                return
        self._faults.add("record_in_no_log", seq=seq)
