"""Who takes items to a sink, and what may come of that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sojourn.errors import Unavailable
from sojourn.providers.errors import ProviderUnavailable
from sojourn.sinks.items import Item


class SinkDown(Unavailable):
    """A sink has not taken what was sent, and may do so later."""

    def __init__(self, public: str, *, detail: str = "", after: float = 0.0) -> None:
        """`after`: seconds until when it asks not to be tried."""
        super().__init__(public, detail=detail)
        self.after = after

    @classmethod
    def of(cls, error: ProviderUnavailable, detail: str = "") -> "SinkDown":
        """The same of what is outside, with what to do about it. `detail`: in the place of the error's own."""
        return cls(f"{error.public}{f'; {error.hint}' if error.hint else ''}", detail=detail or error.detail)


class ItemsRefused(Exception):
    """A sink answers, and will never take one of the items that were sent. `reason`: for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Taken:
    """What was sent is taken, but for `refused` items of which the sink says no more than why."""

    refused: int = 0
    reason: str = ""


class Sender(Protocol):
    """Takes items to one sink. One batch at a time."""

    async def send(self, items: Sequence[Item]) -> Taken:
        """Return once they are taken. Raise SinkDown, or ItemsRefused: which of several is not said."""

    async def close(self) -> None: ...
