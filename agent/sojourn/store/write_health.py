"""Whether the database takes writes, by what became of its last commits."""

import time
from collections.abc import Callable, Iterable

from sojourn.errors import SojournError, StoreFailed, StoreFull
from sojourn.limits import STORE_STUCK_SECONDS

_REFUSED = (StoreFailed, StoreFull)  # the store's own faults; what a write raises of its own says nothing about it


class WriteHealth:
    """What the writer thread tells of its commits. One thread writes it; anybody reads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._refused = ""
        self._began: float | None = None  # the commit that is under way
        self.looked_at = monotonic()  # when it was last seen whether the database takes writes

    @property
    def fault(self) -> str:
        """Why writes are not taken; '' if they are, as far as is known."""
        began = self._began
        if began is not None and (waited := self._monotonic() - began) > STORE_STUCK_SECONDS:
            return f"a write has not come back from the disk for {waited:.0f} seconds"
        return self._refused

    def begin(self) -> None:
        """A commit is under way."""
        self._began = self._monotonic()

    def done(self, errors: Iterable[SojournError | None]) -> None:
        """It is over, with what became of each of its writes."""
        came = list(errors)
        refused = next((each for each in came if isinstance(each, _REFUSED)), None)
        if refused is not None:
            self._refused = refused.public
        elif None in came:
            self._refused = ""
        self._began, self.looked_at = None, self._monotonic()

    @property
    def idle_seconds(self) -> float:
        """For how long nothing was written."""
        return self._monotonic() - self.looked_at
