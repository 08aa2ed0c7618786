"""The times of what was forgotten, such as the ends of tokens that were used: spans, apart from each other.

What has a time within one of them may have been used. The latest time alone would not do: whoever's clock once stood
years ahead had forgotten something of then, and would take nothing until then.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sojourn.limits import FORGOTTEN_SPANS


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The spans, the first and the last time of each since the epoch, in their order; at most FORGOTTEN_SPANS."""

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> "Forgotten":
        """Read spans as `text` writes them, or the latest time alone. Raise ValueError."""
        if not text:
            return cls()
        if "-" not in text:
            return cls(((0, int(text)),))
        pairs = (span.split("-") for span in text.split(","))
        return cls(tuple((int(first), int(last)) for first, last in pairs))

    @property
    def text(self) -> str:
        return ",".join(f"{first}-{last}" for first, last in self.spans)

    def has(self, time: int) -> bool:
        """Whether something of that time may have been forgotten."""
        return any(first <= time <= last for first, last in self.spans)

    def ahead(self, now: int) -> tuple[int, int] | None:
        """The last span, if it lies ahead: it comes of a clock that stood there."""
        return self.spans[-1] if self.spans and self.spans[-1][0] > now else None

    def and_of(self, spans: Iterable[tuple[int, int]]) -> "Forgotten":
        """With others. Where there are too many, those with the least between them become one."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted((*self.spans, *spans)):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        while len(merged) > FORGOTTEN_SPANS:
            at = min(range(len(merged) - 1), key=lambda number: merged[number + 1][0] - merged[number][1])
            merged[at : at + 2] = [(merged[at][0], merged[at + 1][1])]
        return Forgotten(tuple(merged))
