"""Whole numbers counted in buckets that grow by a quarter of a doubling: small, and two of them make a third."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self

_BUCKETS_A_DOUBLING = 4
_BUCKETS_KEPT = 1_024  # of values that came up: most are small


@dataclass(slots=True)
class Histogram:
    """How often which size came up. The greatest is exact; any other is told to a fifth, and exactly up to 6."""

    greatest: int = 0
    counts: dict[int, int] = field(default_factory=dict)  # by bucket

    def add(self, value: int) -> None:
        """Count a value; less than nothing counts as nothing."""
        self._put(_bucket(value), 1)
        self.greatest = max(self.greatest, value)

    def move(self, before: int, after: int) -> None:
        """What was counted as one value turns out to be another, which is greater."""
        self.add(after)
        self._put(_bucket(before), -1)

    def reach(self, value: int) -> None:
        """One of those that were counted turns out to be as great as this; which of them, nobody knows."""
        self.greatest = max(self.greatest, value)

    def merge(self, other: "Histogram") -> None:
        """Have what both have."""
        self.greatest = max(self.greatest, other.greatest)
        for bucket, number in other.counts.items():
            self._put(bucket, number)

    def quantile(self, share: float) -> int:
        """A value that at least this share of them does not exceed; 0 of none."""
        left = math.ceil(share * sum(each for each in self.counts.values() if each > 0))
        for bucket in sorted(self.counts):
            left -= max(0, self.counts[bucket])
            if left <= 0:
                return min(_most(bucket), self.greatest)
        return self.greatest

    def _put(self, bucket: int, number: int) -> None:
        """Two halves of a day may each have less than nothing of a bucket."""
        left = self.counts.get(bucket, 0) + number
        if left:
            self.counts[bucket] = left
        else:
            self.counts.pop(bucket, None)

    @property
    def nothing(self) -> int:
        """How many of them were 0."""
        return max(0, self.counts.get(0, 0))

    @property
    def more(self) -> int:
        """How many of them were more than 0."""
        return sum(number for bucket, number in self.counts.items() if bucket and number > 0)

    def document(self) -> dict[str, Any]:
        return {"greatest": self.greatest, "counts": {str(each): self.counts[each] for each in sorted(self.counts)}}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        return cls(document["greatest"], {int(bucket): number for bucket, number in document["counts"].items()})


@lru_cache(_BUCKETS_KEPT)
def _bucket(value: int) -> int:
    return 0 if value <= 0 else 1 + math.ceil(_BUCKETS_A_DOUBLING * math.log2(value))


def _most(bucket: int) -> int:
    """The greatest value of a bucket."""
    return 0 if bucket == 0 else math.floor(2 ** ((bucket - 1) / _BUCKETS_A_DOUBLING))
