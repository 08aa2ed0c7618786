"""What becomes of entries: the changes, where they are kept, and the audit records that are written with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sojourn.audit.journal import Event
from sojourn.errors import SojournError
from sojourn.identity.entries import Registration

Recorder = Callable[[str, Registration], Event]  # makes the record of what became of an entry: `entry_created`


class EntryStore(Protocol):
    """Where entries are kept, each change with its audit records."""

    def load(self) -> list[Registration]: ...

    async def write(self, put: Sequence[Registration], remove: Sequence[str], events: Sequence[Event] = ()) -> None: ...


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one entry; `old` is None for a new one, `new` is None for one that is gone.

    `served` says whether `new` is this node's to serve now.
    """

    old: Registration | None
    new: Registration | None
    served: bool = True


@dataclass(frozen=True, slots=True)
class ChangeOutcome:
    """The result for one item of a batch: `error` is None if it was done."""

    entry: Registration | None
    error: SojournError | None = None


def recorded(changes: Sequence[Change], record: Recorder | None) -> list[Event]:
    """The audit records of some changes."""
    made: list[Event] = []
    for change in changes if record is not None else ():
        entry = change.new or change.old
        done = "created" if change.old is None else "deleted" if change.new is None else "updated"
        if entry is not None and record is not None:
            made.append(record(f"entry_{done}", entry))
    return made


def named_in_records(entry: Registration) -> dict[str, Any]:
    """Which entry it is, and whose, as records say it."""
    named = {"entry_id": entry.id, "spiffe_id": str(entry.spiffe_id), "revision": entry.revision}
    return named | {name: text for name in ("owner", "sponsor") if (text := getattr(entry, name))}
