"""When what was forgotten had ended: spans of time, apart from each other.

What ends within one of them may have been used. One latest end would not do: whoever's clock once stood years ahead had
forgotten something that ended there, and would take nothing until then.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sojourn.limits import FORGOTTEN_SPANS


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The spans, first and last second since the epoch of each, in their order; at most FORGOTTEN_SPANS."""

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> "Forgotten":
        """Of a database: spans as `text` has them, or the latest end alone, as it once was. Raise ValueError."""
        if not text:
            return cls()
        if "-" not in text:
            return cls(((0, int(text)),))
        pairs = (span.split("-") for span in text.split(","))
        return cls(tuple((int(first), int(last)) for first, last in pairs))

    @property
    def text(self) -> str:
        return ",".join(f"{first}-{last}" for first, last in self.spans)

    def has(self, end: int) -> bool:
        """Whether something that ends then may have been forgotten."""
        return any(first <= end <= last for first, last in self.spans)

    def ahead(self, now: int) -> tuple[int, int] | None:
        """The last span, if it lies ahead: what ends there was used while the clock stood ahead, and is over for it."""
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
