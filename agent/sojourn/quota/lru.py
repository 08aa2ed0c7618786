"""Caches that forget what was not used for longest: `Lru` has room for a number of values, `Recent` also for what they
weigh, with a share for each owner.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Lru(Generic[Key, Value]):
    """Values by key, `room` of them. When there is one too many, the one that was not used for longest goes.

    With `by_age`, asking for a value is no use of it: the one that was put first goes. Iterating gives the keys, the
    one that goes next first. Threads that share an Lru need a lock.
    """

    def __init__(self, room: int, *, by_age: bool = False) -> None:
        self.room = room
        self._by_age = by_age
        self._kept: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Key) -> bool:
        """Whether there is a value for a key, which is not used by that."""
        return key in self._kept

    def __iter__(self) -> Iterator[Key]:
        return iter(self._kept)

    def values(self) -> list[Value]:
        """All values, the one that goes next first."""
        return list(self._kept.values())

    def get(self, key: Key) -> Value | None:
        """The value of a key; None if there is none."""
        value = self._kept.get(key)
        if value is not None and not self._by_age:
            self._kept.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> tuple[Key, Value] | None:
        """Keep a value as the newest, in the place of the one before. Return what had to go to make room."""
        self._kept[key] = value
        self._kept.move_to_end(key)
        return self._kept.popitem(last=False) if len(self._kept) > self.room else None

    def drop(self, key: Key) -> Value | None:
        """Forget one value, if it is there, and return it."""
        return self._kept.pop(key, None)

    def drop_while(self, which: Callable[[Value], bool]) -> None:
        """Forget the values that go next, up to the first that is not so."""
        while self._kept and which(next(iter(self._kept.values()))):
            self._kept.popitem(last=False)

    def drop_if(self, which: Callable[[Value], bool]) -> None:
        """Forget the values that are so."""
        for key in [key for key, value in self._kept.items() if which(value)]:
            del self._kept[key]

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


class Room(NamedTuple):
    """How much there is room for: a number of values, and what they weigh together, in bytes."""

    number: int
    weight: int


class _Kept(NamedTuple, Generic[Value]):
    value: Value
    owner: Hashable
    weight: int


class Recent(Generic[Key, Value]):
    """Values by key. When there is no room left, those that were not used for longest go: first of their owner's own,
    if it has its share.
    """

    def __init__(self, room: Room, share: Room) -> None:
        """`room` is for all values, `share` for those of one owner. A value that is more than a share is not kept."""
        self._room = room
        self._share = share
        self._kept: OrderedDict[Key, _Kept[Value]] = OrderedDict()
        self._of_owner: dict[Hashable, OrderedDict[Key, None]] = {}
        self._weight = 0
        self._weights: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def weight(self) -> int:
        """The size of all that is kept, in bytes."""
        return self._weight

    def get(self, key: Key) -> Value | None:
        """The value of a key, which is used by that; None if there is none."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        self._of_owner[kept.owner].move_to_end(key)
        return kept.value

    def put(self, key: Key, value: Value, owner: Hashable, weight: int) -> None:
        """Keep a value in the place of the one before."""
        self.drop(key)
        if weight > self._share.weight:
            return
        self._kept[key] = _Kept(value, owner, weight)
        own = self._of_owner.setdefault(owner, OrderedDict())
        own[key] = None
        self._weight += weight
        self._weights[owner] = self._weights.get(owner, 0) + weight
        while len(own) > self._share.number or self._weights[owner] > self._share.weight:
            self.drop(next(iter(own)))
        while len(self._kept) > self._room.number or self._weight > self._room.weight:
            self.drop(next(iter(self._kept)))

    def drop(self, key: Key) -> None:
        """Forget one value, if it is there."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        own = self._of_owner[kept.owner]
        del own[key]
        self._weight -= kept.weight
        self._weights[kept.owner] -= kept.weight
        if not own:
            del self._of_owner[kept.owner], self._weights[kept.owner]

    def drop_owner(self, owner: Hashable) -> None:
        """Forget all values of one owner."""
        for key in tuple(self._of_owner.get(owner, ())):
            self.drop(key)

    def drop_if(self, which: Callable[[Value], bool]) -> None:
        """Forget the values that are so."""
        for key in [key for key, kept in self._kept.items() if which(kept.value)]:
            self.drop(key)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._of_owner.clear()
        self._weights.clear()
        self._weight = 0
