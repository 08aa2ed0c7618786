"""Counts for Prometheus what becomes of tasks, by type and reason: of the agent's own words, so that they are few."""

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client import Counter as Metric

from sojourn.audit.journal import Audit
from sojourn.limits import METRIC_TYPES
from sojourn.tasks.refusal_reports import OTHER, RefusalCounts
from sojourn.tasks.task import Task
from sojourn.tasks.use_reports import UseReports

ISSUED: Final = Metric("sojourn_task_tokens_issued_total", "Tokens of tasks, by their type.", ["type"])
DENIED: Final = Metric(
    "sojourn_task_denials_total", "Tasks and tokens that were not given, by type and code.", ["type", "code"]
)
ENDED: Final = Metric("sojourn_tasks_ended_total", "Tasks that ended, by type and state.", ["type", "state"])
CALLS: Final = Metric("sojourn_task_calls_total", "Calls that services let through, by the task's type.", ["type"])
REFUSED: Final = Metric(
    "sojourn_requests_refused_total",
    "Requests that services refused, by the task's type (none: it is not known) and code.",
    ["type", "code"],
)
_DENIALS: Final = frozenset({"begin_denied", "token_denied", "delegation_denied"})


class TaskMetrics:
    """Hears what happens. Types are as many as METRIC_TYPES, however often they are others: then they are `other`."""

    def __init__(self, audit: Audit, uses: UseReports, refusals: RefusalCounts) -> None:
        self._types: set[str] = set()
        audit.on_event(self._happened)
        uses.on_use(self._used)
        refusals.on_refused(self._refused)

    def _happened(self, event: str, fields: Mapping[str, Any]) -> None:
        kind = self._type(str(fields.get("type") or ""))
        if event == "token_issued":
            ISSUED.labels(kind).inc()
        elif event == "task_ended":
            ENDED.labels(kind, str(fields.get("state"))).inc()
        elif event in _DENIALS:
            DENIED.labels(kind, str(fields.get("code"))).inc()

    def _used(self, task: Task, calls: int) -> None:
        CALLS.labels(self._type(task.type.name)).inc(calls)

    def _refused(self, kind: str, code: str, count: int) -> None:
        REFUSED.labels(self._type(kind), code).inc(count)

    def _type(self, name: str) -> str:
        if name in self._types or not name:
            return name
        if len(self._types) >= METRIC_TYPES:
            return OTHER
        self._types.add(name)
        return name
