"""Standing privilege: what somebody could use at any time, and nobody does. Each with since when that is so."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sojourn.oversight.report import TypeUse
from sojourn.oversight.sums import IssuedSum

ENTRY: Final = "entry"  # a registration entry of which no SVID was issued
TYPE: Final = "type"  # a task type of which no task began
CREDENTIAL: Final = "credential"  # of a provider outside, that outlives its task


@dataclass(frozen=True, slots=True)
class Standing:
    """One of them. `name`: an entry's ID, a type's name, or a credential's ID. `about`: whose it is.

    `since_ms`: since when at least. `until_ms`: when it ends by itself; 0: never.
    """

    kind: str
    name: str
    about: str
    since_ms: int
    until_ms: int = 0


@dataclass(frozen=True, slots=True)
class EntryLife:
    """What is known of an entry. `until_ms` 0: it does not expire."""

    id: str
    spiffe_id: str
    created_ms: int
    until_ms: int


def of_entries(
    entries: Iterable[EntryLife], issued: Mapping[str, IssuedSum], since_ms: int, counted_since_ms: int
) -> list[Standing]:
    """The entries of which no SVID was issued since a time."""
    found = []
    for each in entries:
        last = issued[each.id].last_ms if each.id in issued else 0
        if last < since_ms or not last:
            # Before anything was counted it may have been used.
            since = last or max(each.created_ms, counted_since_ms)
            found.append(Standing(ENTRY, each.id, each.spiffe_id, since, each.until_ms))
    return found


def of_types(uses: Iterable[TypeUse]) -> list[Standing]:
    """The types of which no task began in the time of a report."""
    return [
        Standing(TYPE, each.type, f"{len(each.unused.workloads)} workloads may begin it", each.since_ms)
        for each in uses
        if not each.tasks
    ]
