"""Metrics of policy's decisions. Each token waits for some, so they are counted without a lock: by the loop alone."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sojourn.limits import METRIC_TYPES
from sojourn.tasks.refusal_reports import OTHER
from sojourn.tasks.task import Task

_BOUNDS: Final = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.1)
_ANSWERS: Final[Mapping[bool, str]] = {True: "allow", False: "deny"}


class DecisionMetrics(Collector):
    """Hears each decision in the loop; a thread collects, and may miss the one that is being counted."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, bool], int] = {}
        self._within = [0] * (len(_BOUNDS) + 1)  # how many took as long as each bound at the most, and longer than all
        self._seconds = 0.0

    def decided(self, task: Task, allowed: bool, seconds: float) -> None:
        """Count one. `seconds` that it took."""
        key = (task.type.name, allowed)
        if key not in self._counts and len(self._counts) >= 2 * METRIC_TYPES:
            key = (OTHER, allowed)
        self._counts[key] = self._counts.get(key, 0) + 1
        self._within[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds += seconds

    def collect(self) -> Iterable[Metric]:
        decisions = CounterMetricFamily(
            "sojourn_decisions",
            "Decisions of policy on tasks, by type and answer: allow or deny.",
            labels=["type", "answer"],
        )
        for (kind, allowed), count in tuple(self._counts.items()):
            decisions.add_metric([kind, _ANSWERS[allowed]], count)
        took = HistogramMetricFamily(
            "sojourn_decision_seconds", "How long policy took for a decision, with those that it has at hand."
        )
        bounds = [*map(str, _BOUNDS), "+Inf"]
        took.add_metric([], list(zip(bounds, accumulate(self._within), strict=True)), self._seconds)
        return [decisions, took]
