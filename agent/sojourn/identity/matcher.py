"""Finding the entries of a caller without looking at all of them."""

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from sojourn.attestation.selectors import Selector
from sojourn.identity.entries import Entry, Registration
from sojourn.identity.templates import Placeholder, fillable
from sojourn.limits import BLIND_INDEXES_KEPT, MATCHED_SELECTORS_MAX, MATCHES_KEPT
from sojourn.quota.lru import Lru

Kind = TypeVar("Kind", bound=Registration)
_Key = Selector | Placeholder | None


class _Drawers:
    """Entries, each filed under one of its selectors or placeholders: the one under which the fewest others are filed.

    `blind` to some types or kinds of selectors: only entries that hang on such are filed, by what else they ask for.
    """

    def __init__(self, blind: frozenset[str] = frozenset()) -> None:
        self._blind = blind
        self._filed: dict[_Key, dict[str, tuple[frozenset[Selector], Registration]]] = {}
        self._key_of: dict[str, _Key] = {}

    def add(self, entry: Registration) -> None:
        """File `entry`, in the place of an earlier one with the same ID."""
        self.remove(entry.id)
        asked, placeholders = entry.selectors, entry.placeholders
        if self._blind:
            asked = frozenset(selector for selector in entry.selectors if not selector.within(self._blind))
            placeholders = tuple(each for each in entry.placeholders if not each.within(self._blind))
            if len(asked) == len(entry.selectors) and len(placeholders) == len(entry.placeholders):
                return
        keys: list[_Key] = [*sorted(asked), *placeholders]
        key = min(keys, key=lambda each: len(self._filed.get(each, ())), default=None)
        self._filed.setdefault(key, {})[entry.id] = (asked, entry)
        self._key_of[entry.id] = key

    def remove(self, entry_id: str) -> None:
        if entry_id not in self._key_of:
            return
        key = self._key_of.pop(entry_id)
        drawer = self._filed[key]
        del drawer[entry_id]
        if not drawer:
            del self._filed[key]

    def among(self, selectors: frozenset[Selector]) -> Iterator[Registration]:
        """The entries that ask for nothing else, but for what this is blind to.

        Those with a placeholder for which there is no selector may be left out.
        """
        for key in (*selectors, *{Placeholder.filled_by(each) for each in selectors}, None):
            for asked, entry in self._filed.get(key, {}).values():
                if asked <= selectors:
                    yield entry


class EntryIndex:
    """Entries by what they ask for."""

    def __init__(self) -> None:
        self._entries: dict[str, Registration] = {}
        self._drawers = _Drawers()
        self._blind: Lru[frozenset[str], _Drawers] = Lru(BLIND_INDEXES_KEPT)  # made when they are needed

    def add(self, entry: Registration) -> None:
        """File `entry`, in the place of an earlier one with the same ID."""
        self._entries[entry.id] = entry
        for drawers in (self._drawers, *self._blind.values()):
            drawers.add(entry)

    def remove(self, entry_id: str) -> None:
        self._entries.pop(entry_id, None)
        for drawers in (self._drawers, *self._blind.values()):
            drawers.remove(entry_id)

    def match(self, selectors: frozenset[Selector]) -> tuple[Registration, ...]:
        """The entries whose selectors are all among `selectors`, in the stated order.

        Those of which a placeholder cannot be filled may be left out.
        """
        return tuple(sorted(self._drawers.among(selectors), key=lambda entry: entry.order))

    def possible(self, selectors: frozenset[Selector], untold: frozenset[str]) -> Iterator[Registration]:
        """The entries that `might_match`, in no order: there may be many, and one may do."""
        if not untold:
            return iter(())
        drawers = self._blind.get(untold)
        if drawers is None:
            drawers = _Drawers(untold)
            for entry in self._entries.values():
                drawers.add(entry)
            self._blind.put(untold, drawers)
        return (entry for entry in drawers.among(selectors) if might_match(entry, selectors, untold))


class Matches:
    """What callers with some set of selectors have, until an entry changes: MATCHES_KEPT sets of moderate size."""

    def __init__(self) -> None:
        self._kept: OrderedDict[frozenset[Selector], tuple[Entry, ...]] = OrderedDict()

    def get(self, selectors: frozenset[Selector]) -> tuple[Entry, ...] | None:
        kept = self._kept.get(selectors)
        if kept is not None:
            self._kept.move_to_end(selectors)
        return kept

    def put(self, selectors: frozenset[Selector], entries: tuple[Entry, ...]) -> None:
        if len(selectors) <= MATCHED_SELECTORS_MAX:
            self._kept[selectors] = entries
            if len(self._kept) > MATCHES_KEPT:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """An entry has changed: what was found may not be so any more."""
        self._kept.clear()


def might_match(entry: Registration, selectors: frozenset[Selector], untold: frozenset[str]) -> bool:
    """Whether an entry gives nothing, and might if all selectors of the kinds `untold` were known."""
    missing = entry.selectors - selectors
    if not all(selector.within(untold) for selector in missing):
        return False
    if not missing and not any(each.within(untold) for each in entry.placeholders):
        return False
    return fillable(entry.placeholders, selectors, untold)


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


def unique_hints(entries: Iterable[Kind]) -> tuple[Kind, ...]:
    """Of entries that share a hint keep one, since hints are unique (Workload API 5.2.1): the one with the highest
    priority, then the oldest, then the one with the smallest ID.
    """
    kept: dict[str, Kind] = {}
    entries = tuple(entries)
    for entry in entries:
        if entry.hint:
            held = kept.get(entry.hint)
            if held is None or _precedence(entry) < _precedence(held):
                kept[entry.hint] = entry
    return tuple(entry for entry in entries if not entry.hint or kept[entry.hint] is entry)


def that_matter(entries: Sequence[Registration], possible: Iterable[Registration]) -> Iterator[Registration]:
    """Of entries that may match too, those that would change what a caller with `entries` has: whose hint is not taken
    by one of these that goes before.
    """
    return (each for each in possible if not each.hint or any(kept is each for kept in unique_hints((*entries, each))))


def _precedence(entry: Registration) -> tuple[int, int, str]:
    return (-entry.priority, entry.created_at, entry.id)
