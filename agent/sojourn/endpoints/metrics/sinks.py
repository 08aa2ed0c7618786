"""Metrics of the journal's sinks."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sojourn.sinks.sinks import Sinks


class SinkMetrics(Collector):
    """Each by the sink's name, of which the configuration has few."""

    def __init__(self, sinks: Sinks) -> None:
        self._sinks = sinks

    def collect(self) -> Iterable[Metric]:
        records = GaugeMetricFamily(
            "sojourn_audit_sink_lag_records", "Records of the journal that the sink has not had.", labels=["sink"]
        )
        seconds = GaugeMetricFamily(
            "sojourn_audit_sink_lag_seconds",
            "How long ago the oldest record was written that the sink has not had; 0: it has had all.",
            labels=["sink"],
        )
        failing = GaugeMetricFamily("sojourn_audit_sink_failing", "1 while the sink takes nothing.", labels=["sink"])
        refused = CounterMetricFamily(
            "sojourn_audit_sink_refused",
            "Records, and notices beside them, that the sink refused and that were set aside, in all time.",
            labels=["sink"],
        )
        gap = CounterMetricFamily(
            "sojourn_audit_sink_gap", "Records that were pruned before the sink had them, in all time.", labels=["sink"]
        )
        for each in self._sinks.all:
            name = [each.about.name]
            records.add_metric(name, self._sinks.lag_records(each))
            seconds.add_metric(name, each.lag_seconds)
            failing.add_metric(name, bool(each.fault))
            refused.add_metric(name, each.state.refused)
            gap.add_metric(name, each.state.gap)
        return [records, seconds, failing, refused, gap]
