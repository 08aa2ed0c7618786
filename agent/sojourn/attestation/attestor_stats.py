"""How each attestor fares: how often it was asked, how long it takes, and how it failed last."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks

# What comes of one attestation: all attestors could tell; some could not; the process had gone or changed meanwhile.
PROVED, PARTLY, CHANGED = "proved", "partly", "changed"


@dataclass(slots=True)
class AttestorRecord:
    """How one attestor fared since the agent started. `failing`: it could not tell the last time it was asked."""

    asked: int = 0
    failed: int = 0
    seconds: float = 0.0  # in all
    failing: bool = False
    failure: str = ""  # the last one
    failed_at: datetime | None = None


class Tally:
    """Counts the answers of all attestors."""

    def __init__(self, names: Iterable[str], clock: Clock) -> None:
        self.records = {name: AttestorRecord() for name in names}
        self._clock = clock
        self.on_answer: Hooks[[str, float, str]] = Hooks()  # attestor, seconds, why it could not tell ('': it could)
        self.on_end: Hooks[[str]] = Hooks()  # of the process of an attestor
        self.on_attested: Hooks[[str]] = Hooks()  # a process: PROVED, PARTLY or CHANGED

    def note(self, name: str, seconds: float, failure: str) -> None:
        """Count one answer; `failure` is why there is none, or ''."""
        record = self.records[name]
        record.asked += 1
        record.seconds += seconds
        record.failing = bool(failure)
        if failure:
            record.failed += 1
            record.failure, record.failed_at = failure, self._clock.now()
        self.on_answer.tell(name, seconds, failure)

    def note_unfit(self, name: str, failure: str) -> None:
        """Note why an attestor that was not asked yet could not tell."""
        record = self.records[name]
        record.failing, record.failure, record.failed_at = True, failure, self._clock.now()
