"""Metrics of the upstream authority, which signs the intermediate. Without one `sojourn_upstream_up` is 1."""

from collections.abc import Iterable
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from sojourn.authority.upstream import UpstreamHealth


class BelowUpstream(Protocol):
    """An authority that may have one above it."""

    @property
    def upstream(self) -> UpstreamHealth | None: ...


class UpstreamAuthorityMetrics(Collector):
    """How it answers."""

    def __init__(self, authority: BelowUpstream) -> None:
        self._authority = authority

    def collect(self) -> Iterable[Metric]:
        health = self._authority.upstream
        up = GaugeMetricFamily(
            "sojourn_upstream_up",
            "1 while the upstream authority answers as it should, or there is none; 0: no intermediate can be renewed.",
        )
        up.add_metric([], float(health is None or not health.fault))
        last = GaugeMetricFamily(
            "sojourn_upstream_last_success_timestamp_seconds",
            "When the upstream authority last answered as it should, as Unix time; 0: not in this run.",
        )
        requests = CounterMetricFamily(
            "sojourn_upstream_requests_total",
            "Requests to the upstream authority, by operation (sign, look) and result (ok, failed, refused).",
            labels=["operation", "result"],
        )
        seconds = SummaryMetricFamily(
            "sojourn_upstream_seconds", "How long requests to the upstream authority took.", labels=["operation"]
        )
        yield up
        if health is not None:
            success = health.last_success
            last.add_metric([], 0 if success is None else success.timestamp())
            for (operation, result), count in tuple(health.results.items()):
                requests.add_metric([operation, result], count)
            for operation, total in tuple(health.seconds.items()):
                made = sum(count for (of, _), count in tuple(health.results.items()) if of == operation)
                seconds.add_metric([operation], made, total)
        yield from (last, requests, seconds)
