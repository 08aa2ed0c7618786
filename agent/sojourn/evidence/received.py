"""What a sink of the journal has received, checked without an agent: whether a record is missing, and none was changed.

The lines are those that the agent sends (`sinks/items.py`), or events of OCSF with such a line within; each by itself
or behind whatever a receiver puts before it, such as the head of a syslog message. A receiver may have a line several
times, and in parts that overlap.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sojourn.audit.journal import FIRST, Record
from sojourn.audit.leaves import chained, leaf_of, record_of
from sojourn.errors import InvalidInput
from sojourn.evidence.faults import Faults
from sojourn.evidence.trust import ROTATED
from sojourn.ocsf.within import line_within
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.merkle import HASH_BYTES, leaf_hash
from sojourn.tlog.notes import Note, VerifierKey
from sojourn.tlog.tiles import Edge

_LOG_BEGUN: Final = "audit_log_begun"
_RANGES_TOLD: Final = 100


@dataclass(slots=True)
class _Log:
    """One log of the journal. `leaves`: the hashes of its leaves, one behind the other, as far as none is missing."""

    first_seq: int
    leaves: bytearray = field(default_factory=bytearray)
    roots: dict[int, bytes] = field(default_factory=dict)  # by the sizes of checkpoints

    @property
    def size(self) -> int:
        return len(self.leaves) // HASH_BYTES


class ReceivedCheck:
    """One check of all that a receiver has. `missing` and `told`: ranges of records, by the first and the last one."""

    def __init__(self, keys: Sequence[VerifierKey]) -> None:
        """`keys`: of the logs; without any no signature is looked at."""
        self.faults = Faults()
        self.records = 0
        self.again = 0
        self.checkpoints = 0
        self.compared = 0  # checkpoints whose records are all there, and make its root
        self.missing: list[tuple[int, int]] = []
        self.told: list[tuple[int, int]] = []
        self._keys = list(keys)
        self._signed = bool(keys)
        self._new_keys: list[VerifierKey] = []
        self._digests: dict[int, str] = {}
        self._logs: dict[str, _Log] = {}

    @property
    def good(self) -> bool:
        return not self.faults.count

    def read(self, lines: Iterable[bytes]) -> None:
        """Take lines, in the order in which they were received. The last one may be cut short: it is still to come."""
        for line in lines:
            begin = line.find(b"{")
            if not line.endswith(b"\n") or begin < 0:
                if line.strip() and line.endswith(b"\n"):
                    self.faults.add("record_unreadable")
                continue
            self._line(line[begin:].rstrip())

    def finish(self) -> None:
        """Look for what is missing, and compare checkpoints, once all is read."""
        told = sorted(self.told)
        before = None
        for seq in sorted(self._digests):
            if before is not None and seq > before + 1:
                self._gap(before + 1, seq - 1, told)
            before = seq
        for log in self._logs.values():
            self._compare(log)

    def summary(self) -> dict[str, Any]:
        """What was found, as it is printed in JSON."""
        return {
            "good": self.good,
            "records": self.records,
            "again": self.again,
            "first_seq": min(self._digests, default=None),
            "last_seq": max(self._digests, default=None),
            "missing": [list(each) for each in self.missing[:_RANGES_TOLD]],
            "told": [list(each) for each in self.told[:_RANGES_TOLD]],
            "checkpoints": self.checkpoints,
            "compared": self.compared,
            "signatures": self._signed,
            **self.faults.summary(),
        }

    def _line(self, line: bytes) -> None:
        try:
            record = record_of(line)
        except InvalidInput:
            self._no_record(line)
        else:
            self._record(record, line)

    def _no_record(self, line: bytes) -> None:
        """Take a line that is no record of ours as it is: of OCSF, or a notice."""
        try:
            line = line_within(line)
            record = record_of(line)
        except InvalidInput:
            self._notice(line)
        else:
            self._record(record, line)

    def _record(self, record: Record, line: bytes) -> None:
        known = self._digests.get(record.seq)
        if known == record.digest:
            self.again += 1
            return
        if known is not None:
            self.faults.add("received_twice", seq=record.seq)
        before = FIRST if record.seq == 1 else self._digests.get(record.seq - 1)
        if before is not None and not chained(record, before):
            self.faults.add("record_changed", seq=record.seq)
        self.records += known is None
        self._digests[record.seq] = record.digest
        self._leaf(record, line)

    def _leaf(self, record: Record, line: bytes) -> None:
        if record.event in {_LOG_BEGUN, ROTATED}:
            try:
                said = json.loads(record.fields)
            except (ValueError, RecursionError):
                said = {}
            if record.event == _LOG_BEGUN:
                self._logs.setdefault(str(said.get("origin")), _Log(record.seq))
            else:
                self._rotated(str(said.get("vkey")))
        for log in self._logs.values():
            if record.seq == log.first_seq + log.size:
                log.leaves += leaf_hash(leaf_of(line))

    def _rotated(self, vkey: str) -> None:
        try:
            self._new_keys.append(VerifierKey.parse(vkey))
        except InvalidInput:
            return  # then nothing that it signs is believed

    def _notice(self, line: bytes) -> None:
        try:
            said = json.loads(line)
            kind = said["kind"]
            if kind == "gap":
                self.told.append((int(said["from_seq"]), int(said["until_seq"])))
            elif kind == "checkpoint":
                self._checkpoint(str(said["note"]), int(said["first_seq"]))
                for each in said.get("cosigned", ()):
                    self._cosigned(str(each), int(said["first_seq"]))
            else:
                self.faults.add("record_unreadable")
        except (ValueError, KeyError, TypeError, RecursionError):
            self.faults.add("record_unreadable")

    def _checkpoint(self, text: str, first_seq: int) -> None:
        self.checkpoints += 1
        self._cosigned(text, first_seq)

    def _cosigned(self, text: str, first_seq: int) -> None:
        """A checkpoint that has its part in the comparison of roots."""
        try:
            note = Note.parse(text.encode())
            checkpoint = Checkpoint.parse(note.text)
        except InvalidInput:
            self.faults.add("checkpoint_unreadable")
            return
        end = first_seq + checkpoint.size - 1
        if self._signed and not self._is_signed(note, checkpoint.origin):
            self.faults.add("checkpoint_not_signed", seq=end)
            return
        log = self._logs.get(checkpoint.origin)
        if log is None:  # it was begun before this receiver was
            return
        if log.roots.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
            self.faults.add("head_forked", "two checkpoints of one size have different roots", end)

    def _is_signed(self, note: Note, origin: str) -> bool:
        if not any(key.name == origin and note.is_signed(key) for key in self._keys):
            return False
        # What a believed key has signed together with its follower makes that believed, too.
        self._keys += [key for key in self._new_keys if key not in self._keys and note.is_signed(key)]
        return True

    def _gap(self, first: int, last: int, told: Sequence[tuple[int, int]]) -> None:
        """Records that are missing are a fault, unless the agent has told that it could not send them."""
        for begin, end in told:
            if begin <= first <= end:
                first = end + 1
        if first <= last:
            self.missing.append((first, last))
            self.faults.add("record_missing", f"records from {first} to {last} are missing", first)

    def _compare(self, log: _Log) -> None:
        edge, leaves = Edge(), memoryview(log.leaves)
        for size in sorted(log.roots):
            if size > log.size:
                return  # of these records are missing, which is told
            for at in range(edge.size, size):
                for _ in edge.append(bytes(leaves[at * HASH_BYTES : (at + 1) * HASH_BYTES])):
                    pass
            if edge.root() != log.roots[size]:
                self.faults.add("tree_changed", seq=log.first_seq + size - 1)
                return
            self.compared += 1
