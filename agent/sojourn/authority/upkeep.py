"""Keeping an authority's keys in time."""

import structlog

from sojourn.authority.embedded import EmbeddedAuthority
from sojourn.clock import Alarm, Alarms

log = structlog.get_logger()


class Upkeep:
    """Renews an authority's keys when due, and when the wall clock was set."""

    def __init__(self, authority: EmbeddedAuthority, alarms: Alarms) -> None:
        self._authority = authority
        self._alarms = alarms
        self._alarm: Alarm | None = None
        alarms.on_step(self.run)

    def run(self) -> None:
        """Do it, and come back when the next are due."""
        if self._alarm is not None:
            self._alarm.cancel()
        try:
            wait = self._authority.maintain().total_seconds()
        except Exception:
            log.exception("authority_not_renewed")
            wait = 60.0
        self._alarm = self._alarms.after(wait, self.run)
