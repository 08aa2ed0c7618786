"""How much of something each owner has, and what is held for each within a limit."""

from collections import Counter
from collections.abc import Hashable
from typing import TypeVar

Owner = TypeVar("Owner", bound=Hashable)


class Usage(Counter[Owner]):
    """Places, bytes or anything else that is counted, by whose they are. Nobody is in it without."""

    def add(self, owner: Owner, number: int = 1) -> None:
        """Count so many more."""
        self[owner] = self.get(owner, 0) + number

    def remove(self, owner: Owner, number: int = 1) -> None:
        """Count so many fewer."""
        left = self.get(owner, 0) - number
        if left > 0:
            self[owner] = left
        else:
            self.pop(owner, None)


class Held(Usage[int | str]):
    """Bytes that are held for callers, by whose they are: as much as `each` is allowed."""

    def __init__(self, each: int) -> None:
        """`each`: bytes that one caller may have held."""
        super().__init__()
        self._each = each

    def hold(self, who: int | str, size: int) -> bool:
        """Count so many bytes more, or fewer. Return whether that is still allowed: fewer always is."""
        self[who] += size
        if self[who] <= 0:
            del self[who]
        return size <= 0 or self[who] <= self._each
