"""Facts: pieces of context that policies read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Publication:
    """One fact as somebody publishes it."""

    name: str
    subject: str
    value: str | int | bool
    source: str
    valid_seconds: float | None
    happened_at: datetime


class Facts:
    """Stands in until the facts are merged."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Publication] = {}

    async def publish(self, publication: Publication, by: Mapping[str, Any]) -> bool:
        del by
        place = (publication.name, publication.subject, publication.source)
        known = self._known.get(place)
        if known is not None and publication.happened_at <= known.happened_at:
            return False
        self._known[place] = publication
        return True
