"""Recent failures, for `sojourn status`: what the log said of things that went wrong, counted.

Whatever is logged as a warning or worse is one, so that nothing need be told twice; and so are those refusals of calls
that an operator looks for. Failures of one kind and subject are one line with a count. The newest are kept, in memory.
"""

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sojourn.errors import SojournError
from sojourn.limits import FAILURE_TEXT_MAX, FAILURES_KEPT
from sojourn.quota.lru import Lru
from sojourn.runtime.clock import Clock

_WARNINGS = frozenset({"warning", "error", "exception", "critical"})
_REFUSED = frozenset({"call_refused", "http_refused", "caller_refused", "signal_refused"})
_REFUSALS = frozenset(
    {
        "attestation_failed",
        "no_identity",
        "store_failed",
        "store_full",
        "database_damaged",
        "limit_exceeded",
        "not_admitted",
    }
)
# What a failure is about: the first of these that the log line has.
_SUBJECTS = ("attestor", "spiffe_id", "trust_domain", "folder", "task_id", "uid", "path", "method", "logger", "sink")
# Failures of one kind and subject that have causes of their own: each reason is a line with a count.
_BY_REASON = frozenset({"loop_stood_still"})


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, of what, why (the last time), and how often."""

    what: str
    subject: str
    reason: str
    first_at: datetime
    last_at: datetime
    count: int = 1


class Failures:
    """Hears the log. Any thread may log, so any thread may call."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Lru[tuple[str, str, str], Failure] = Lru(FAILURES_KEPT)

    def hear(self, method: str, event: Mapping[str, Any]) -> None:
        """Note a log line if it tells of a failure. `method` is the level by which it was logged."""
        what = str(event.get("event", ""))
        if what in _REFUSED:
            code = str(event.get("code", "not_admitted"))  # at the door there are no codes
            if code not in _REFUSALS:
                return
            what = f"refused_{code}"
        elif method not in _WARNINGS:
            return
        name = next((name for name in _SUBJECTS if event.get(name) is not None), "")
        subject = _cut(f"{name.removesuffix('_id') if name == 'task_id' else name} {event[name]}") if name else ""
        self.note(what, subject, _reason(event), _cut(str(event.get("reason", ""))) if what in _BY_REASON else "")

    def note(self, what: str, subject: str, reason: str, cause: str = "") -> None:
        """Count a failure. Those of one kind, subject and `cause` are counted together."""
        now, key = self._clock.now(), (what, subject, cause)
        with self._lock:
            known = self._found.get(key)
            if known is None:
                made = Failure(what, subject, _cut(reason), now, now)
            else:
                made = replace(known, reason=_cut(reason), last_at=now, count=known.count + 1)
            self._found.put(key, made)

    def recent(self) -> list[Failure]:
        """Those that are kept, the newest first."""
        with self._lock:
            return list(reversed(self._found.values()))


def _reason(event: Mapping[str, Any]) -> str:
    said = str(event.get("reason") or event.get("message") or "")
    detail = event.get("detail")
    error = event.get("exc_info")
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        # The texts of foreign errors may hold anything; the log has them, and this is shown more widely.
        said = said or (error.public if isinstance(error, SojournError) else type(error).__name__)
    if detail:
        said = f"{said} ({detail})"
    return f"{said}, last for pid {event['pid']}" if event.get("pid") is not None else said


def _cut(text: str) -> str:
    return text if len(text) <= FAILURE_TEXT_MAX else text[: FAILURE_TEXT_MAX - 1] + "…"
