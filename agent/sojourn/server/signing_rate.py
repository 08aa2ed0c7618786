"""How much is signed for one node: what is over that waits for its turn, so that no node is a burden to the others."""

from collections.abc import Callable

from sojourn.errors import LimitExceeded
from sojourn.limits import (
    NODE_SIGNATURES_BURST,
    NODE_SIGNATURES_PER_SECOND,
    NODE_SIGNATURES_WAIT_SECONDS,
)
from sojourn.spiffe.ids import SpiffeId


class SigningRate:
    """A bucket for each node, from which a call takes all that it needs, and waits for what was not there."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now`: seconds of a clock that nobody sets."""
        self._now = now
        self._buckets: dict[SpiffeId, tuple[float, float]] = {}  # signatures left, less than none too, and since when

    def wait_for(self, node: SpiffeId, signatures: int) -> float:
        """Take so many, and return for how many seconds to wait before they are made. Raise LimitExceeded."""
        now = self._now()
        left, at = self._buckets.get(node, (float(NODE_SIGNATURES_BURST), now))
        left = min(NODE_SIGNATURES_BURST, left + (now - at) * NODE_SIGNATURES_PER_SECOND) - signatures
        seconds = max(0.0, -left / NODE_SIGNATURES_PER_SECOND)
        if seconds > NODE_SIGNATURES_WAIT_SECONDS:
            raise LimitExceeded("too many signatures are asked for: try again in some seconds")
        self._buckets[node] = (left, now)
        return seconds

    def forget(self, node: SpiffeId) -> None:
        """Keep nothing of a node that is gone."""
        self._buckets.pop(node, None)
