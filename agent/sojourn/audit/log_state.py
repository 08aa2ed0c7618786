"""What is kept of one signed log of the journal. A value."""

from dataclasses import dataclass
from typing import Final

# Why a log was begun. Each is a reason of the record `audit_log_begun`.
FIRST_LOG, RESTORED, LOST = "first", "database_restored", "database_lost"
KEY_LOST, AHEAD = "audit_key_lost", "checkpoint_ahead"
DAMAGED, MISSING = "tree_damaged", "records_missing"
REASONS: Final = {
    FIRST_LOG: "the journal was not signed before",
    RESTORED: "a database was restored or put back: what was signed since it was made is not in it",
    LOST: "the database of an earlier run is gone",
    KEY_LOST: "the key of the log before is gone or cannot be used",
    AHEAD: "a checkpoint was signed that this database does not know of: it was put back",
    DAMAGED: "the tree in the database is not the one that was signed",
    MISSING: "records that were not signed yet are not in the journal",
}


@dataclass(frozen=True, slots=True)
class LogState:
    """One log. Its leaf 0 is the record `first_seq`; `checkpoint` is a signed note of `size` leaves, or empty.

    `previous`: the last checkpoint that is known of the log before, a note. `epoch`: of the start that has begun it.
    """

    number: int
    origin: str
    first_seq: int
    reason: str
    epoch: int
    vkey: str
    begun_ms: int
    previous: str = ""
    size: int = 0
    checkpoint: str = ""

    @property
    def end_seq(self) -> int:
        """The last record that its checkpoint has."""
        return self.first_seq + self.size - 1
