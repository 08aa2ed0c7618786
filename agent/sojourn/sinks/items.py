"""What is sent to sinks: records, the checkpoints that sign them, and notices of what is gone. Values.

Each is one line of canonical JSON. A record's line is `audit/leaves.py`'s, the same bytes each time; other lines have a
member `kind`, which no record has. A sink may want other lines that are made of these, as `ocsf/translation.py` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sojourn.audit.journal import Record
from sojourn.audit.leaves import line_of
from sojourn.audit.log_state import LogState
from sojourn.jose.canonical_json import canonical
from sojourn.operating_limits import SINK_BATCH_BYTES

RECORD, CHECKPOINT, GAP = "record", "checkpoint", "gap"
REFUSED: Final = "sink_refused"  # the event of a record that a sink did not take something


class Lines(Protocol):
    """What a sink's lines are. The same record gives the same bytes."""

    batch_bytes: int  # of lines that are sent at once, but for one that is longer itself

    def record(self, record: Record) -> bytes:
        """The line of a record."""

    def notice(self, kind: str, seq: int, at_ms: int, line: bytes) -> bytes:
        """The line of a checkpoint or a gap, of which `line` is our own."""


class OwnLines(Lines):
    """Ours, as they are."""

    batch_bytes = SINK_BATCH_BYTES

    def record(self, record: Record) -> bytes:
        return line_of(record)

    def notice(self, kind: str, seq: int, at_ms: int, line: bytes) -> bytes:
        del kind, seq, at_ms
        return line


OWN: Final = OwnLines()


@dataclass(frozen=True, slots=True)
class Item:
    """One line, without a newline. `seq`: of the record, or the last one that a notice is about."""

    kind: str
    seq: int
    at_ms: int
    event: str
    line: bytes

    @classmethod
    def of_record(cls, record: Record, lines: Lines = OWN) -> "Item":
        return cls(RECORD, record.seq, record.at_ms, record.event, lines.record(record))

    @classmethod
    def of_checkpoint(cls, log: LogState, at_ms: int, lines: Lines = OWN, cosigned: Sequence[str] = ()) -> "Item":
        """The last checkpoint of a log: all records up to `until_seq` from `first_seq` on are its leaves.

        `cosigned`: of each witness the last one that it has cosigned, which may be of fewer.
        """
        said: dict[str, Any] = {"first_seq": log.first_seq, "kind": CHECKPOINT, "note": log.checkpoint}
        said |= {"until_seq": log.end_seq, **({"cosigned": list(cosigned)} if cosigned else {})}
        line = lines.notice(CHECKPOINT, log.end_seq, at_ms, canonical(said).encode())
        return cls(CHECKPOINT, log.end_seq, at_ms, "audit_checkpoint", line)

    @classmethod
    def of_gap(cls, from_seq: int, until_seq: int, at_ms: int, lines: Lines = OWN) -> "Item":
        """These records were pruned before the sink had them."""
        said = {"from_seq": from_seq, "kind": GAP, "until_seq": until_seq}
        line = lines.notice(GAP, until_seq, at_ms, canonical(said).encode())
        return cls(GAP, until_seq, at_ms, "audit_gap", line)

    @property
    def is_told_of(self) -> bool:
        """Whether it is recorded that a sink refused this: never of what such a record would make again."""
        return self.kind == RECORD and self.event != REFUSED


def lines(items: Sequence[Item]) -> bytes:
    """NDJSON: each line with a newline behind it."""
    return b"".join([each.line + b"\n" for each in items])


@dataclass(frozen=True, slots=True)
class SinkState:
    """How far a sink is. `seq`: the last record that it has taken, or that it does not want.

    `log` and `size`: of the last checkpoint that it has taken. `refused`: items that were set aside. `gap`: records
    that were pruned before it had them.
    """

    name: str
    seq: int
    log: int = 0
    size: int = 0
    refused: int = 0
    gap: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events a sink wants, `include` if there are any, else all but `exclude`; and as which lines."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    lines: Lines = field(default=OWN, compare=False)


@dataclass(frozen=True, slots=True)
class Passage:
    """The next records that a sink wants, and up to where the journal was looked at for them.

    `first`: the oldest record that there is. `head`: the newest. `oldest_ms`: when the first was recorded of those
    behind the sink's place, wanted or not; 0: there is none.
    """

    items: tuple[Item, ...]
    reached: int
    first: int
    head: int
    oldest_ms: int
