"""A queue of several owners, each of whom has one turn in a round, however many items are theirs."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)
Item = TypeVar("Item", bound=Hashable)


class FairQueue(Generic[Owner, Item]):
    """Items are taken owner by owner in turn, and of one owner in the order in which they were put.

    An owner who comes late with one item is behind one item of each other owner, and not behind all that they have.
    """

    def __init__(self) -> None:
        # The owner whose turn is next comes first. A dictionary keeps the order, and finds an item in the middle.
        self._lines: dict[Owner, dict[Item, None]] = {}

    def __len__(self) -> int:
        """How many items there are."""
        return sum(map(len, self._lines.values()))

    def __bool__(self) -> bool:
        return bool(self._lines)

    def owners(self) -> tuple[Owner, ...]:
        """Whoever has an item, in the order of their turns."""
        return tuple(self._lines)

    def length_of(self, owner: Owner) -> int:
        """How many items of an owner there are."""
        return len(self._lines.get(owner, ()))

    def put(self, owner: Owner, item: Item) -> None:
        """Add an item behind the others of its owner. One that its owner has there already stays where it is."""
        line = self._lines.get(owner)
        if line is None:
            line = self._lines[owner] = {}
        line[item] = None

    def take(self) -> Item | None:
        """Remove and return the first item of the owner whose turn it is; None if there is no item at all."""
        return self.take_of(next(iter(self._lines))) if self._lines else None

    def take_of(self, owner: Owner) -> Item | None:
        """Remove and return the first item of this owner, whose next turn comes after all others'; None if there is
        none.
        """
        line = self._lines.pop(owner, None)
        if line is None:
            return None
        item = next(iter(line))
        del line[item]
        if line:
            self._lines[owner] = line
        return item

    def discard(self, owner: Owner, item: Item) -> None:
        """Remove an item that is not to have its turn any more, if it is there."""
        line = self._lines.get(owner)
        if line is None:
            return
        line.pop(item, None)
        if not line:
            del self._lines[owner]
