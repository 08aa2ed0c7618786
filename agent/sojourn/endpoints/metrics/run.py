"""Metrics of the run: what runs, whether it is ready, how often it was started again, and steps of the clock."""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Final

from prometheus_client import Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sojourn.runtime.clock import Alarms
from sojourn.runtime.readiness import CONDITIONS, Readiness, State, state_of
from sojourn.store.tables import SCHEMA

STEPS: Final = Counter(
    "sojourn_clock_steps_total", "How often the wall clock was set by a second or more while the agent ran."
)


def count_steps(alarms: Alarms) -> None:
    """Count from now on."""
    alarms.on_step(STEPS.inc)


class RunMetrics(Collector):
    """Of this run of the agent, and of those before it on the same database."""

    def __init__(self, readiness: Readiness, restarts: Mapping[str, int]) -> None:
        """`restarts`: of all time, by how the run before ended."""
        self._readiness = readiness
        self._restarts = restarts
        self._version = version("sojourn")

    def collect(self) -> Iterable[Metric]:
        info = GaugeMetricFamily(
            "sojourn_build_info",
            "1, with the versions of the agent, of Python, and of the database's schema.",
            labels=["version", "python", "schema"],
        )
        info.add_metric([self._version, platform.python_version(), SCHEMA], 1)
        failing = {fault.name for fault in self._readiness.faults()}
        ready = GaugeMetricFamily("sojourn_ready", "1 while the agent is ready, 0 while it is not.")
        ready.add_metric([], state_of(failing) is not State.UNREADY)
        conditions = GaugeMetricFamily(
            "sojourn_condition_failed",
            "1 while a condition of readiness does not hold, by its name.",
            labels=["condition"],
        )
        for name in CONDITIONS:
            conditions.add_metric([name], name in failing)
        restarts = CounterMetricFamily(
            "sojourn_restarts",
            "How often the agent was started again on its database, by how the run before ended: stopped or killed.",
            labels=["reason"],
        )
        for reason, count in self._restarts.items():
            restarts.add_metric([reason], count)
        return [info, ready, conditions, restarts]
