"""Figures of the notices of approval requests, for Prometheus."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sojourn.notices.outbox import DELIVERED, DROPPED, FAILED, Notices


class NoticeMetrics(Collector):
    """They are collected in a thread of their own."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices

    def collect(self) -> Iterable[Metric]:
        waiting = GaugeMetricFamily("sojourn_approval_notices_waiting", "Notices that are to be delivered.")
        waiting.add_metric([], len(self._notices))
        results = CounterMetricFamily(
            "sojourn_approval_notices",
            "Deliveries of notices, failed attempts, and what was dropped.",
            labels=["result"],
        )
        for result in (DELIVERED, FAILED, DROPPED):
            results.add_metric([result], self._notices.results[result])
        return [waiting, results]
