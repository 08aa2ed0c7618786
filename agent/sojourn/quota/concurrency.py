"""So many at once for each owner, and what is over that is refused."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from sojourn.errors import LimitExceeded
from sojourn.quota.usage import Usage


class Concurrency:
    """So many at once for each uid, or for each SPIFFE ID of callers over the network. Nobody waits: see FairSemaphore
    for that.
    """

    def __init__(self, each: int, what: str) -> None:
        """`what`: the name of what there may be `each` of, for whoever is refused."""
        self._each = each
        self._what = what
        self._now = Usage[int | str]()

    def one(self, who: int | str) -> AbstractContextManager[None]:
        """Take a place. Raise LimitExceeded if the user or workload has no more."""
        return self.some(who, 1)

    @contextmanager
    def some(self, who: int | str, places: int) -> Iterator[None]:
        """Take several places, or whatever is counted here. Raise LimitExceeded if so many are not left."""
        if self._now[who] + places > self._each:
            raise LimitExceeded(f"the {'user' if isinstance(who, int) else 'workload'} has too many {self._what}")
        self._now[who] += places
        try:
            yield
        finally:
            self._now.remove(who, places)
