"""An agent whose wall clock a test sets while it runs; its other clocks go on as they are."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harness.agent import AgentProcess
from harness.lacking import lacking

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


class SteppedAgent(AgentProcess):
    """Starts `ago` before the present, so that its root certificate is older than a step back."""

    def __init__(self, *, ago: timedelta = timedelta(0), config: str | None = None) -> None:
        if not _LIBRARIES:
            lacking("needs libfaketime: install the package faketime")
        super().__init__(config=config)
        self._file = self.folder / "clock"
        self._offset = timedelta(0)
        self.step(-ago)
        self.extra_environment = {
            "LD_PRELOAD": str(_LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # otherwise waits of the interpreter's own take seconds after a step
        }

    def now(self) -> datetime:
        """The agent's wall clock."""
        return datetime.now(UTC) + self._offset

    def step(self, by: timedelta) -> float:
        """Set the wall clock ahead or back; when that was, on the monotonic clock."""
        self._offset += by
        scratch = self._file.with_suffix(".new")
        scratch.write_text(f"{int(self._offset.total_seconds()):+d}\n")
        scratch.rename(self._file)
        return time.monotonic()
