"""Metrics of the witnesses that cosign the signed journal."""

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sojourn.witness.witnesses import Witnesses


class WitnessMetrics(Collector):
    """Each by the witness's name, of which the configuration has few."""

    def __init__(self, witnesses: Witnesses) -> None:
        self._witnesses = witnesses

    def collect(self) -> Iterable[Metric]:
        age = GaugeMetricFamily(
            "sojourn_audit_witness_age_seconds",
            "How long ago the witness cosigned a checkpoint of the journal; where it has none, since the start.",
            labels=["witness"],
        )
        failing = GaugeMetricFamily(
            "sojourn_audit_witness_failing", "1 while the witness cosigns nothing.", labels=["witness"]
        )
        forked = GaugeMetricFamily(
            "sojourn_audit_witness_forked",
            "1 while the witness knows of another head of the journal's log than the one that is signed here.",
            labels=["witness"],
        )
        for each in self._witnesses.all:
            name = [each.about.name]
            age.add_metric(name, each.age_seconds)
            failing.add_metric(name, bool(each.fault))
            forked.add_metric(name, each.forked)
        return [age, failing, forked, *self._stamps()]

    def _stamps(self) -> list[Metric]:
        stamping = self._witnesses.stamping
        failing = GaugeMetricFamily("sojourn_audit_timestamp_failing", "1 while no checkpoint can be time-stamped.")
        last = GaugeMetricFamily(
            "sojourn_audit_timestamp_last_timestamp_seconds",
            "When a checkpoint of the journal was time-stamped last, by the authority's clock; 0: never.",
        )
        if stamping is not None:
            failing.add_metric([], bool(stamping.fault))
            last.add_metric([], stamping.stamped_at)
        return [failing, last]
