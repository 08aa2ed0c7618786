"""Who may come in, before any work is done for them: connections and their rate, by uid."""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from sojourn.errors import LimitExceeded
from sojourn.limits import (
    ADMIN_CONNECTIONS,
    CONNECTION_BURST_PER_UID,
    CONNECTIONS_PER_UID_SHARE,
    DESCRIPTORS_PER_CONNECTION,
    DESCRIPTORS_RESERVED,
)
from sojourn.runtime.clock import Clock
from sojourn.settings.tables import LimitsConfig

_BUCKETS_KEPT = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Admission:
    """Counts connections by uid. A refused connection is closed without a word."""

    def __init__(self, clock: Clock, *, connections: int, per_uid: int, per_uid_per_second: int) -> None:
        self._clock = clock
        self._connections = connections
        self._per_uid = per_uid
        self._rate = per_uid_per_second
        self._open: Counter[int] = Counter()
        self._total = 0
        self._buckets: dict[int, _Bucket] = {}

    @classmethod
    def within(cls, descriptors: int, share: float, limits: LimitsConfig, clock: Clock) -> "Admission":
        """For a door that may take this share of the agent's descriptors, beyond those that are reserved."""
        reserved = DESCRIPTORS_RESERVED + ADMIN_CONNECTIONS * DESCRIPTORS_PER_CONNECTION
        connections = max(16, int((descriptors - reserved) * share / DESCRIPTORS_PER_CONNECTION))
        return cls(
            clock,
            connections=connections,
            per_uid=limits.connections_per_uid or max(8, int(connections * CONNECTIONS_PER_UID_SHARE)),
            per_uid_per_second=limits.connections_per_uid_per_second,
        )

    def allow(self, limits: LimitsConfig) -> None:
        """Go by other limits from now on. Whoever has more connections than they allow keeps them."""
        self._per_uid = limits.connections_per_uid or max(8, int(self._connections * CONNECTIONS_PER_UID_SHARE))
        self._rate = limits.connections_per_uid_per_second

    @property
    def open(self) -> int:
        return self._total

    def enter(self, uid: int) -> str:
        """Take a place for a connection of `uid`. Return '' or the reason why there is none; then do not `leave`."""
        if self._total >= self._connections:
            return "all connections are taken"
        if self._open[uid] >= self._per_uid:
            return "the user has too many connections"
        if not self._take(uid):
            return "the user connects too often"
        self._open[uid] += 1
        self._total += 1
        return ""

    def leave(self, uid: int) -> None:
        self._total -= 1
        self._open[uid] -= 1
        if self._open[uid] <= 0:
            del self._open[uid]

    def _take(self, uid: int) -> bool:
        now = self._clock.boot()
        burst = max(CONNECTION_BURST_PER_UID, self._rate)
        bucket = self._buckets.get(uid)
        if bucket is None:
            if len(self._buckets) >= _BUCKETS_KEPT:  # full buckets say nothing that a new one would not
                self._buckets = {
                    each: held
                    for each, held in self._buckets.items()
                    if held.tokens + (now - held.at) * self._rate < burst
                }
            bucket = self._buckets[uid] = _Bucket(burst, now)
        bucket.tokens = min(burst, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


class Held(Counter[int | str]):
    """Bytes that are held for callers, by whose they are; nobody is in it without."""

    def __init__(self, each: int) -> None:
        """`each`: bytes that one caller may have held."""
        super().__init__()
        self._each = each

    def hold(self, who: int | str, size: int) -> bool:
        """Count so many bytes more, or fewer. Return whether that is still allowed: fewer always is."""
        self[who] += size
        if self[who] <= 0:
            del self[who]
        return size <= 0 or self[who] <= self._each


class Concurrency:
    """So many at once for each uid, or for each SPIFFE ID of callers over the network."""

    def __init__(self, each: int, what: str) -> None:
        self._each = each
        self._what = what
        self._now: Counter[int | str] = Counter()

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
            self._now[who] -= places
            if self._now[who] <= 0:
                del self._now[who]
