"""Records that wait for the disk: no more than there is room for, and whoever has most of them loses the oldest."""

from collections import Counter, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Each = TypeVar("Each")
Whose = tuple[str, int | str]  # a field of records and its value; ("", ""): nobody's but the agent's
Batch = dict[Whose, deque[tuple[int, Each]]]


class Waiting(Generic[Each]):
    """Records in the order in which they came, by whose they are."""

    def __init__(self, most: int) -> None:
        self.lost: Counter[Whose] = Counter()  # and not told of yet
        self._most = most
        self._of: Batch[Each] = {}
        self._with: dict[int, dict[Whose, None]] = {}  # those who have so many
        self._largest = 0
        self._number = self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, whose: Whose, record: Each) -> bool:
        """Have one more wait. Return whether one is lost for it."""
        self._number += 1
        self._of.setdefault(whose, deque()).append((self._number, record))
        self._counted(whose, 1)
        return self._count > self._most and self._drop()

    def take(self) -> Batch[Each]:
        """All, which wait no longer."""
        taken, self._of = self._of, {}
        self._with, self._largest, self._count = {}, 0, 0
        return taken

    def put_back(self, batch: Batch[Each]) -> int:
        """Have what was taken wait again, before what has come since. Return how many are lost for it."""
        for whose, since in self.take().items():
            batch.setdefault(whose, deque()).extend(since)
        self._of = batch
        for whose, records in batch.items():
            self._with.setdefault(len(records), {})[whose] = None
            self._count += len(records)
        self._largest = max(self._with, default=0)
        over = self._count - self._most
        for _ in range(over):
            self._drop()
        return max(0, over)

    def _drop(self) -> bool:
        whose = next(iter(self._with[self._largest]))
        self._of[whose].popleft()
        self.lost[whose] += 1
        self._counted(whose, -1)
        return True

    def _counted(self, whose: Whose, change: int) -> None:
        now = len(self._of[whose])
        before = self._with.get(now - change)
        if before is not None:
            before.pop(whose, None)
            if not before:
                del self._with[now - change]
        if now:
            self._with.setdefault(now, {})[whose] = None
        else:
            del self._of[whose]
        if now > self._largest or self._largest not in self._with:
            self._largest = now
        self._count += change


def in_order(batch: Batch[Each]) -> Iterator[Each]:
    """The records of a batch as they came."""
    return (record for _, record in sorted(each for records in batch.values() for each in records))
