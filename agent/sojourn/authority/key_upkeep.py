"""Renewing the authority's keys when that is due."""

import structlog

from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.runtime.clock import Alarm, Alarms

log = structlog.get_logger()
RETRY_SECONDS = 60.0


class Upkeep:
    """Renews the authority's keys when due, and when the wall clock was set."""

    def __init__(self, authority: EmbeddedAuthority, alarms: Alarms) -> None:
        self._authority = authority
        self._alarms = alarms
        self._alarm: Alarm | None = None
        alarms.on_step(self.run)
        authority.on_issuer(self.run)

    def run(self) -> None:
        """Do it, and come back when the next are due."""
        if self._alarm is not None:
            self._alarm.cancel()
        try:
            wait = self._authority.maintain().total_seconds()
        except Exception:
            log.exception("authority_not_renewed")
            wait = RETRY_SECONDS
        self._alarm = self._alarms.after(wait, self.run)
