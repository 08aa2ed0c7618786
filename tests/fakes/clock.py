"""A clock that a test sets."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """Stands still until told otherwise. Wall time and boot time go on together, or the wall alone is stepped."""

    def __init__(self, now: datetime = datetime(2030, 1, 1, tzinfo=UTC), boot: float = 1000.0) -> None:
        if now.tzinfo is None:
            raise ValueError("wall time has no time zone")
        self._now = now
        self._boot = boot

    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        return self._now

    def boot(self) -> float:
        """Seconds on the boot clock."""
        return self._boot

    def advance(self, seconds: float) -> None:
        """Let time go by, on both clocks. It does not go back: that is `step_wall`."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._now += timedelta(seconds=seconds)
        self._boot += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock ahead or back, as an administrator or NTP does; the boot clock does not see it."""
        self._now += timedelta(seconds=seconds)
