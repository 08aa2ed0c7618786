"""Counts for Prometheus what becomes of tasks, by type and reason: of the agent's own words, so that they are few."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import Counter as Metric
from prometheus_client import Histogram
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from sojourn.audit.journal import Audit
from sojourn.endpoints.api.approvals import BREAK_GLASS
from sojourn.limits import METRIC_TYPES
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.refusal_reports import OTHER, RefusalCounts
from sojourn.tasks.task import Task
from sojourn.tasks.use_reports import UseReports
from sojourn.tasktoken import end_reasons

ISSUED: Final = Metric("sojourn_task_tokens_issued_total", "Tokens of tasks, by their type.", ["type"])
DENIED: Final = Metric(
    "sojourn_task_denials_total", "Tasks and tokens that were not given, by type and code.", ["type", "code"]
)
BEGUN: Final = Metric("sojourn_tasks_begun_total", "Tasks that began, or were accepted, by type.", ["type"])
ENDED: Final = Metric("sojourn_tasks_ended_total", "Tasks that ended, by type and state.", ["type", "state"])
REASONS: Final = Metric("sojourn_task_ends_total", "Tasks that ended, by reason.", ["reason"])
TOLD: Final = Histogram(
    "sojourn_end_to_feed_seconds",
    "How long after the end of a task the last validator was woken that hears of it.",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5),
)
CALLS: Final = Metric("sojourn_task_calls_total", "Calls that services let through, by the task's type.", ["type"])
REFUSED: Final = Metric(
    "sojourn_requests_refused_total",
    "Requests that services refused, by the task's type (none: it is not known) and code.",
    ["type", "code"],
)
_BEGUN: Final = frozenset({"task_begun", "delegation_accepted"})
_DENIALS: Final = frozenset({"begin_denied", "token_denied", "delegation_denied"})


class TaskMetrics(Collector):
    """Hears what happens. Types are as many as METRIC_TYPES, however often they are others: then they are `other`."""

    def __init__(self, engine: TaskEngine, audit: Audit, uses: UseReports, refusals: RefusalCounts) -> None:
        self._engine = engine
        self._types: set[str] = set()
        # The library finds a series by its labels under a lock: each token would wait for that some times.
        self._series: dict[tuple[Metric, tuple[str, ...]], Metric] = {}
        audit.on_event(self._happened)
        engine.feed.on_told(TOLD.observe)
        uses.on_use(self._used)
        refusals.on_refused(self._refused)

    def collect(self) -> Iterable[Family]:
        """Nothing of its own; it has the types in force stand at 0, so that the first of something is a rise."""
        for name, kind in dict(self._engine.types).items():
            if (known := self._type(name)) != OTHER:
                BEGUN.labels(known)
                ISSUED.labels(known)
                if kind.break_glass:
                    BREAK_GLASS.labels(known)
        return ()

    def _happened(self, event: str, fields: Mapping[str, Any]) -> None:
        kind = self._type(str(fields.get("type") or ""))
        if event == "token_issued":
            self._count(ISSUED, kind)
        elif event in _BEGUN:
            self._count(BEGUN, kind)
        elif event == "task_ended":
            self._count(ENDED, kind, str(fields.get("state")))
            reason = str(fields.get("reason"))
            self._count(REASONS, reason if reason in end_reasons.REASONS else OTHER)
        elif event in _DENIALS:
            self._count(DENIED, kind, str(fields.get("code")))

    def _count(self, metric: Metric, *labels: str) -> None:
        key = (metric, labels)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = metric.labels(*labels)
        series.inc()

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
