"""Finding the entries of a caller without looking at all of them."""

import heapq
from collections.abc import Iterable

from sojourn.attestation.selectors import Selector
from sojourn.identity.entries import Entry, Registration


class EntryIndex:
    """Entries, each filed under one of its selectors: the one under which the fewest others are filed."""

    def __init__(self) -> None:
        self._filed: dict[Selector, dict[str, Registration]] = {}
        self._selector_of: dict[str, Selector] = {}

    def add(self, entry: Registration) -> None:
        """File `entry`, in the place of an earlier one with the same ID."""
        self.remove(entry.id)
        key = min(sorted(entry.selectors), key=lambda selector: len(self._filed.get(selector, ())))
        self._filed.setdefault(key, {})[entry.id] = entry
        self._selector_of[entry.id] = key

    def remove(self, entry_id: str) -> None:
        key = self._selector_of.pop(entry_id, None)
        if key is None:
            return
        drawer = self._filed[key]
        del drawer[entry_id]
        if not drawer:
            del self._filed[key]

    def match(self, selectors: frozenset[Selector]) -> tuple[Registration, ...]:
        """The entries whose selectors are all among `selectors`, in the stated order."""
        found = [
            entry
            for selector in selectors
            for entry in self._filed.get(selector, {}).values()
            if entry.selectors <= selectors
        ]
        return tuple(sorted(found, key=lambda entry: entry.order))


def nearest(
    entries: Iterable[Registration], selectors: frozenset[Selector], unproved: Iterable[str], limit: int
) -> list[Registration]:
    """Entries that do not match, the nearest first: the fewest missing selectors; of those, the ones that lack what
    could not be proved (`unproved`: kinds such as `unix:path`), then the ones of which most is there.
    """
    kinds = tuple(f"{kind}:" for kind in unproved)

    def distance(entry: Registration) -> tuple[int, int, int, tuple[int, int, int, str, str]]:
        missing = entry.selectors - selectors
        lacking_proof = sum(str(selector).startswith(kinds) for selector in missing)
        return (len(missing), -lacking_proof, -len(entry.selectors & selectors), entry.order)

    return heapq.nsmallest(limit, (entry for entry in entries if not entry.selectors <= selectors), key=distance)


def unique_hints(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Of entries that share a hint keep one, since hints are unique (Workload API 5.2.1): the one with the highest
    priority, then the oldest, then the one with the smallest ID.
    """
    kept: dict[str, Entry] = {}
    entries = tuple(entries)
    for entry in entries:
        if entry.hint:
            held = kept.get(entry.hint)
            if held is None or _precedence(entry) < _precedence(held):
                kept[entry.hint] = entry
    return tuple(entry for entry in entries if not entry.hint or kept[entry.hint] is entry)


def _precedence(entry: Entry) -> tuple[int, int, str]:
    return (-entry.priority, entry.created_at, entry.id)
