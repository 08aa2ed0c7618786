"""Facts: pieces of context that policies read."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Publication:
    """One fact as somebody publishes it."""

    name: str
    subject: str
    value: str | int | bool
    source: str
    valid_seconds: float | None
    happened_at: datetime
