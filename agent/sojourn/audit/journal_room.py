"""What room the journal has where some of its records may not be pruned, and who fills it.

Where nothing holds records, the oldest make room and there is always some. Where `audit.keep` or a required sink holds
them, a flood would stop everybody: so whoever causes more than half of it is stopped first.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from sojourn.errors import AuditFull, LimitExceeded
from sojourn.operating_limits import (
    ROOM_FAIR_RECORDS,
    ROOM_FAIR_SHARE,
    ROOM_LEVELS,
    ROOM_OWNERS,
    ROOM_WINDOW_SECONDS,
)
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks

log = structlog.get_logger()
_SLOT_SECONDS: Final = 60.0  # records are counted by the minute
_RECOVERED: Final = 0.05  # below a level, from where on coming to it is told again


class JournalRoom:
    """`held`: the share of `audit.max_bytes` that records take which may not be pruned. `full`: nothing may be added
    that can be refused.
    """

    def __init__(self, clock: Clock) -> None:
        self.held = 0.0
        self.full = False
        self.on_full: Hooks[[bool]] = Hooks()  # it is full, or is no more
        self._clock = clock
        self._told = 0.0  # the highest level that was told
        self._slot: dict[str, int] = {}  # records by workload, since the last look
        self._slots: deque[tuple[float, Counter[str]]] = deque(
            [(clock.boot(), Counter())]
        )  # before that, by the minute
        self._window: Counter[str] = Counter()  # at the last look
        self._following = False

    def follow(self, on_event: Hooks[[str, Mapping[str, Any]]]) -> None:
        """Count who causes records from now on."""
        if not self._following:
            self._following = True
            on_event(self._heard)

    def _heard(self, _event: str, fields: Mapping[str, Any]) -> None:
        owner = fields.get("spiffe_id", "")
        self._slot[owner] = self._slot.get(owner, 0) + 1

    def judge(self, held: float, *, full: bool) -> None:
        """Take note of how it is now, and say so where that is worth a word."""
        self._turn()
        self.held = held
        level = max((each for each in ROOM_LEVELS if held >= each), default=0.0)
        if level > self._told:
            log.warning(
                "journal_held",
                reason=f"records that audit.keep or a required sink holds take {held:.0%} of audit.max_bytes",
            )
            self._told = level
        elif held < self._told - _RECOVERED:
            self._told = level
        if full != self.full:
            self.full = full
            if full:
                reason = "records that may not be pruned take all of audit.max_bytes: no task begins, no token is given"
                log.error("journal_full", reason=reason)
            else:
                log.warning("journal_has_room", reason="tasks begin again, and tokens are given")
            self.on_full.tell(full)

    def check(self, spiffe_id: object) -> None:
        """Raise AuditFull or LimitExceeded if what this workload asks for may add no record."""
        if self.full:
            raise AuditFull(
                "the audit journal is full of records that may not be pruned: nothing is given that would add to it"
            )
        if self.held > ROOM_FAIR_SHARE and self.causes_most(str(spiffe_id)):
            raise LimitExceeded(
                "this workload has caused more than half of the last hour's audit records, and there is little room"
            )

    def causes_most(self, spiffe_id: str) -> bool:
        """Whether a workload caused more than half of the last hour's records, if there were many, at the last look."""
        total = self._window.total()
        return total >= ROOM_FAIR_RECORDS and self._window[spiffe_id] * 2 > total

    def _turn(self) -> None:
        """Add up the window anew, without what is older."""
        now = self._clock.boot()
        if now - self._slots[-1][0] >= _SLOT_SECONDS:
            self._slots.append((now, Counter()))
        while now - self._slots[0][0] >= ROOM_WINDOW_SECONDS and len(self._slots) > 1:
            self._slots.popleft()
        taken, self._slot = self._slot, {}
        counted = self._slots[-1][1]
        counted.update(taken)
        if len(counted) > ROOM_OWNERS:
            least = dict(counted.most_common()[ROOM_OWNERS:])
            counted.subtract(least)
            counted[""] += sum(least.values())
            self._slots[-1] = (self._slots[-1][0], +counted)
        self._window = Counter()
        for _, each in self._slots:
            self._window.update(each)


Recordable = Callable[[object], None]  # raises if what this workload asks for may add no record


def always(_spiffe_id: object) -> None:
    """There is room, whoever asks."""
