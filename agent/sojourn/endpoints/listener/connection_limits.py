"""Who may come in, before any work is done for them: connections and their rate, by uid."""

from typing import Final

from sojourn.endpoints.listener.refusals import Refusal
from sojourn.limits import (
    ADMIN_CONNECTIONS,
    CONNECTION_BURST_PER_UID,
    CONNECTIONS_PER_UID_SHARE,
    DESCRIPTORS_PER_CONNECTION,
    DESCRIPTORS_RESERVED,
)
from sojourn.quota.rate import BurstRate
from sojourn.quota.usage import Usage
from sojourn.runtime.clock import Clock
from sojourn.settings.tables import LimitsConfig

_NO_ROOM, _TOO_MANY, _TOO_OFTEN = (
    "all connections are taken",
    "the user has too many connections",
    "the user connects too often",
)
REFUSALS: Final = {_NO_ROOM: Refusal.NO_ROOM, _TOO_MANY: Refusal.TOO_MANY, _TOO_OFTEN: Refusal.TOO_OFTEN}


class Admission:
    """Counts connections by uid. A refused connection is closed without a word."""

    def __init__(self, clock: Clock, *, connections: int, per_uid: int, per_uid_per_second: int) -> None:
        self._connections = connections
        self._per_uid = per_uid
        self._rate = BurstRate(per_uid_per_second, CONNECTION_BURST_PER_UID, clock.boot)
        self._open = Usage[int]()
        self._total = 0

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
        self._rate.per_second = limits.connections_per_uid_per_second

    @property
    def open(self) -> int:
        return self._total

    def enter(self, uid: int) -> str:
        """Take a place for a connection of `uid`. Return '' or the reason why there is none, which is one of REFUSALS;
        then do not `leave`.
        """
        if self._total >= self._connections:
            return _NO_ROOM
        if self._open[uid] >= self._per_uid:
            return _TOO_MANY
        if not self._rate.allow(uid):
            return _TOO_OFTEN
        self._open.add(uid)
        self._total += 1
        return ""

    def leave(self, uid: int) -> None:
        self._total -= 1
        self._open.remove(uid)
